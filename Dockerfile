# syntax=docker/dockerfile:1
# The Trimtab server.
#
#   docker build -t trimtab --build-arg TORCH_CPU_INDEX=... .     CPU
#   docker build -t trimtab --build-arg VARIANT=cuda .            NVIDIA GPUs
#
# TORCH_CPU_INDEX is PyTorch's index of CPU builds (see PyTorch's install page, "Compute
# platform: CPU"). Without it the cpu variant works too, with the standard wheel, which
# contains 3 GB of CUDA libraries. The cuda variant always has that wheel, so it has the
# same base image, and its host needs the NVIDIA driver and the container toolkit.
ARG PYTHON=3.12
ARG VARIANT=cpu

FROM python:${PYTHON}-slim AS base
ENV PIP_NO_CACHE_DIR=1 PIP_DISABLE_PIP_VERSION_CHECK=1 PYTHONDONTWRITEBYTECODE=1
RUN python -m venv /opt/trimtab
ENV PATH=/opt/trimtab/bin:$PATH

FROM base AS torch-cuda
COPY constraints.txt /src/
RUN pip install -c /src/constraints.txt torch

FROM base AS torch-cpu
ARG TORCH_CPU_INDEX=
COPY constraints.txt deploy/torch_build.py /src/
# The build ends here if the index was given, and torch has been built for CUDA nevertheless.
RUN python /src/torch_build.py announce "$TORCH_CPU_INDEX" \
    && pip install -c /src/constraints.txt ${TORCH_CPU_INDEX:+--index-url "$TORCH_CPU_INDEX"} torch \
    && python /src/torch_build.py check "$TORCH_CPU_INDEX"

# hadolint ignore=DL3006
FROM torch-${VARIANT} AS build
WORKDIR /src
COPY pyproject.toml constraints.txt README.md LICENSE NOTICE ./
COPY protos protos
COPY protocol protocol
COPY client client
COPY server server
COPY tools tools
# The client, the server and the tools. If torch depends on Triton, it brings the version
# that it was built for.
RUN pip install --no-cache-dir -c constraints.txt . ./server ./tools
ENV NUMBA_CACHE_DIR=/var/cache/trimtab
RUN trimtab-server warm --device cpu

FROM python:${PYTHON}-slim AS runtime-cpu
ENV TRIMTAB_DEVICE=cpu

FROM python:${PYTHON}-slim AS runtime-cuda
ENV TRIMTAB_DEVICE=cuda NVIDIA_VISIBLE_DEVICES=all NVIDIA_DRIVER_CAPABILITIES=compute,utility
# At the first launch Triton compiles its loader of kernels. It needs a C compiler, the C
# library's headers, and Python's headers, which this image has.
# hadolint ignore=DL3008
RUN apt-get update \
    && apt-get install --yes --no-install-recommends gcc libc6-dev \
    && rm -rf /var/lib/apt/lists/*

# hadolint ignore=DL3006
FROM runtime-${VARIANT}
RUN useradd --system --uid 10001 --no-create-home trimtab \
    && install --directory --owner=10001 /var/lib/trimtab
COPY --from=build /opt/trimtab /opt/trimtab
# The kernels compiled above. On another kind of processor the server compiles them again, and
# keeps them if it can write to this folder.
COPY --from=build --chown=10001 /var/cache/trimtab /var/cache/trimtab
COPY examples /opt/trimtab/examples
ENV PATH=/opt/trimtab/bin:$PATH \
    PYTHONDONTWRITEBYTECODE=1 \
    NUMBA_CACHE_DIR=/var/cache/trimtab \
    TRITON_CACHE_DIR=/var/cache/trimtab/triton \
    TRIMTAB_STORE=/var/lib/trimtab/trimtab.db \
    TRIMTAB_LISTEN=0.0.0.0:50051 \
    TRIMTAB_METRICS_LISTEN=0.0.0.0:9464 \
    TRIMTAB_LOG_FORMAT=json
USER 10001
EXPOSE 50051 9464
# Orchestrators restart what is not healthy. That cannot mend a store that fails, and would take
# the solver away: so the check leaves the store out, and trimtab_store_failing and /readyz tell.
HEALTHCHECK --interval=10s --timeout=5s --start-period=60s \
    CMD ["trimtab-server", "healthcheck", "--liveness"]
STOPSIGNAL SIGTERM
ENTRYPOINT ["trimtab-server"]
CMD ["serve"]
