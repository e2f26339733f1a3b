# syntax=docker/dockerfile:1
# The daemon alone: no torch, no compiler, no root. `docker run -v ./kafka.yaml:/etc/tidewarden/tidewarden.yaml:ro ...`

ARG PYTHON=3.13

FROM python:${PYTHON}-slim AS build
WORKDIR /build
COPY locks/run.txt locks/run.txt
RUN python -m venv /opt/tidewarden \
 && /opt/tidewarden/bin/pip install --no-cache-dir --require-hashes --no-deps -r locks/run.txt
COPY pyproject.toml README.md CHANGELOG.md LICENSE ./
COPY detector detector
COPY training training
RUN pip wheel --no-cache-dir --no-deps --wheel-dir dist . \
 && /opt/tidewarden/bin/pip install --no-cache-dir --no-deps dist/*.whl

FROM python:${PYTHON}-slim
LABEL org.opencontainers.image.title="tidewarden" \
      org.opencontainers.image.description="Streaming anomaly detection with recurrent memory per stream" \
      org.opencontainers.image.licenses="Apache-2.0"
COPY --from=build /opt/tidewarden /opt/tidewarden
# Numeric, so that runAsNonRoot can be checked without the image's user table.
RUN install -d -o 1000 -g 1000 /var/lib/tidewarden
ENV PATH=/opt/tidewarden/bin:$PATH \
    PYTHONUNBUFFERED=1 \
    PYTHONDONTWRITEBYTECODE=1 \
    TIDEWARDEN_HTTP__HOST=0.0.0.0
USER 1000:1000
# `state`, the default folder of checkpoints, lies in here.
WORKDIR /var/lib/tidewarden
VOLUME /var/lib/tidewarden
EXPOSE 9464
HEALTHCHECK --interval=10s --timeout=3s --start-period=60s \
  CMD ["python", "-c", "import os, urllib.request as r; r.urlopen(f\"http://127.0.0.1:{os.environ.get('TIDEWARDEN_HTTP__PORT', '9464')}/livez\", timeout=2)"]
STOPSIGNAL SIGTERM
ENTRYPOINT ["tidewarden"]
CMD ["run", "-c", "/etc/tidewarden/tidewarden.yaml"]
