# The images of compose.yaml. `docker build .` makes the coordinator's, `docker build --target demo .` the demo's.
#
# A tag can be moved to another image, a digest cannot. To pin by digest, ask for it once and pass it (or put
# PYTHON_IMAGE=... into .env, for compose):
#     docker buildx imagetools inspect docker.io/library/python:3.11.15-slim-bookworm
#     docker build --build-arg PYTHON_IMAGE=docker.io/library/python:3.11.15-slim-bookworm@sha256:... .
ARG PYTHON_IMAGE=docker.io/library/python:3.11.15-slim-bookworm


FROM ${PYTHON_IMAGE} AS pip
ENV PIP_NO_CACHE_DIR=1 PIP_DISABLE_PIP_VERSION_CHECK=1 PIP_ROOT_USER_ACTION=ignore
WORKDIR /build


# hpopt itself.
FROM pip AS wheel
COPY requirements/build.lock requirements/
RUN pip install --require-hashes --only-binary :all: -r requirements/build.lock
COPY . .
RUN pip wheel --no-deps --no-build-isolation --no-index --wheel-dir dist .


# What it needs: each file has a hash that is in the lock, none is compiled. The tests of numpy and scipy are left out,
# they would be a quarter of all.
FROM pip AS packages
COPY requirements/coordinator.lock requirements/
RUN python -m venv --without-pip /opt/hpopt \
 && pip --python /opt/hpopt/bin/python install --require-hashes --only-binary :all: -r requirements/coordinator.lock \
 && find /opt/hpopt -type d -name tests -prune -exec rm -rf {} +

FROM packages AS coordinator-packages
COPY --from=wheel /build/dist dist
RUN pip --python /opt/hpopt/bin/python install --no-deps --no-index dist/hpopt-*.whl


# What the demo trains with. PyTorch's own index has torch for the CPU, without gigabytes of CUDA. The versions are
# pinned, their hashes are not: this image trains an example, it runs no service.
FROM packages AS torch
ARG TORCH_INDEX=https://download.pytorch.org/whl/cpu
COPY constraints.txt .
RUN pip --python /opt/hpopt/bin/python install --only-binary :all: --extra-index-url ${TORCH_INDEX} \
      --constraint constraints.txt torch scikit-learn

FROM torch AS demo-packages
COPY --from=wheel /build/dist dist
RUN pip --python /opt/hpopt/bin/python install --no-deps --no-index dist/hpopt-*.whl


FROM ${PYTHON_IMAGE} AS run
RUN groupadd --gid 10001 hpopt \
 && useradd --uid 10001 --gid 10001 --home-dir /tmp --no-create-home --shell /usr/sbin/nologin hpopt
ENV PATH=/opt/hpopt/bin:$PATH PYTHONUNBUFFERED=1 PYTHONDONTWRITEBYTECODE=1
USER 10001:10001


FROM run AS demo
USER root
RUN install --directory --owner=10001 --group=10001 /results
USER 10001:10001
COPY --from=demo-packages /opt/hpopt /opt/hpopt
COPY examples/digits.py /demo/
WORKDIR /results


FROM run AS coordinator
COPY --from=coordinator-packages /opt/hpopt /opt/hpopt
ENTRYPOINT ["hpopt-coordinator"]
