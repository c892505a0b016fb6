# trustvlm behind an address, on CPU. docs/operate.md says how to run it.
# For CLIP and others:
#   docker build --build-arg EXTRAS=serve,torch --build-arg TORCH=torch==2.13.0 -t trustvlm .
FROM python:3.12-slim AS build
ARG EXTRAS=serve,offline
ARG TORCH=
WORKDIR /build
COPY pyproject.toml constraints.txt README.md LICENSE ./
COPY src src
RUN python -m venv /opt/trustvlm \
    && /opt/trustvlm/bin/python -m pip install --no-cache-dir -c constraints.txt ${TORCH} ".[${EXTRAS}]"

FROM python:3.12-slim
COPY --from=build /opt/trustvlm /opt/trustvlm
# The only places that are written to; all else may be read-only.
RUN mkdir -p /var/cache/trustvlm /var/lib/trustvlm /models \
    && chown 10001:10001 /var/cache/trustvlm /var/lib/trustvlm
ENV PATH=/opt/trustvlm/bin:$PATH \
    PYTHONUNBUFFERED=1 \
    PYTHONDONTWRITEBYTECODE=1 \
    HOME=/var/cache/trustvlm \
    TRUSTVLM_CACHE=/var/cache/trustvlm \
    TRUSTVLM_SERVE_HOST=0.0.0.0 \
    TRUSTVLM_SERVE_PORT=8000 \
    TRUSTVLM_SERVE_FEEDBACK=/var/lib/trustvlm/feedback.sqlite
VOLUME ["/var/cache/trustvlm", "/var/lib/trustvlm"]
USER 10001:10001
EXPOSE 8000
HEALTHCHECK --start-period=60s --timeout=5s CMD ["python", "-c", "import urllib.request; urllib.request.urlopen('http://127.0.0.1:8000/healthz', timeout=4)"]
ENTRYPOINT ["trustvlm"]
CMD ["serve", "/models/model.trust"]
