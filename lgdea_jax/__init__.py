"""LGDEA-JAX: diagnostic evidence alignment for medical vision-language pretraining."""
