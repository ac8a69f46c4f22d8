# For CPUs: data sets, evaluation, the quick start.
#
#     docker build --file docker/cpu.Dockerfile --tag lgdea-jax:cpu .
#     docker run --rm --volume "$PWD/work:/work" lgdea-jax:cpu train --config=configs/phantom.py --workdir=runs/phantom
FROM python:3.12-slim

ARG EXTRAS=data,dicom,ct
ENV PIP_NO_CACHE_DIR=1 PYTHONUNBUFFERED=1 JAX_PLATFORMS=cpu

COPY . /opt/lgdea-jax
RUN pip install "/opt/lgdea-jax[${EXTRAS}]" && useradd --create-home user && mkdir /work && chown user /work

# Not root: what is written below /work belongs to a user.
USER user
WORKDIR /work
ENTRYPOINT ["lgdea"]
CMD ["--help"]
