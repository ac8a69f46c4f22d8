"""Tests of lgdea_jax.predict and lgdea_jax.calibrate."""
