# For NVIDIA GPUs: JAX's wheels bring CUDA 12; the host has the driver (525 or newer) and the NVIDIA Container Toolkit.
#
#     docker build --file docker/cuda12.Dockerfile --tag lgdea-jax:cuda12 .
#     docker run --rm --gpus all --shm-size=8g --volume "$PWD/work:/work" lgdea-jax:cuda12 \
#         train --config=configs/phantom.py --workdir=runs/phantom
FROM python:3.12-slim

ARG EXTRAS=data,dicom,ct,cuda12
ENV PIP_NO_CACHE_DIR=1 PYTHONUNBUFFERED=1

COPY . /opt/lgdea-jax
RUN pip install "/opt/lgdea-jax[${EXTRAS}]" && useradd --create-home user && mkdir /work && chown user /work

# Not root: what is written below /work belongs to a user.
USER user
WORKDIR /work
ENTRYPOINT ["lgdea"]
CMD ["--help"]
