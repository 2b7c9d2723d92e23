# A server of embeddings and of an index, for a student that `distilvl export` wrote:
#
#   docker build -t photo-server .
#   docker run --read-only --tmpfs /tmp -p 8000:8000 -e DISTILVL_KEY=... -v "$PWD/exported:/model:ro" photo-server --model /model
#
# An index is another read-only volume: -v "$PWD/photos.index:/index:ro" photo-server --index /index --model /model.
FROM python:3.13-slim AS build
WORKDIR /src
COPY pyproject.toml README.md LICENSE ./
COPY src ./src
RUN python -m venv /opt/distilvl \
 && /opt/distilvl/bin/pip install --no-cache-dir --extra-index-url https://download.pytorch.org/whl/cpu ".[serve,search,runtime]"

FROM python:3.13-slim
COPY --from=build /opt/distilvl /opt/distilvl
RUN useradd --uid 10001 --create-home distilvl
USER 10001
ENV PATH=/opt/distilvl/bin:$PATH HF_HUB_OFFLINE=1 PYTHONDONTWRITEBYTECODE=1
EXPOSE 8000
HEALTHCHECK --interval=30s --timeout=5s --start-period=60s \
  CMD ["python", "-c", "import urllib.request as r; r.urlopen('http://127.0.0.1:8000/healthz', timeout=4)"]
ENTRYPOINT ["distilvl", "serve", "--host", "0.0.0.0", "--port", "8000", "--api-key-env", "DISTILVL_KEY"]
