# The environment of requirements.txt and the command `l2s`; studies lie in a volume at /study.
# docs/operations.md (Docker) says how to build it and what to run.
FROM python:3.11.14-slim-bookworm

# Debian keeps no old versions, so that pinned ones would soon be gone.
# hadolint ignore=DL3008
RUN apt-get update \
    && apt-get install --yes --no-install-recommends git make \
    && rm -rf /var/lib/apt/lists/* \
    && useradd --create-home --uid 1000 l2s \
    && install --directory --owner=l2s --group=l2s /opt/l2s /study

USER 1000:1000
ENV PIP_NO_CACHE_DIR=1
WORKDIR /opt/l2s
COPY --chown=1000:1000 Makefile requirements.txt ./
RUN make .venv/packages PYTHON=python3
COPY --chown=1000:1000 LICENSE README.md pyproject.toml dvc.yaml .dvcignore .gitignore ./
COPY --chown=1000:1000 .dvc/config .dvc/config
COPY --chown=1000:1000 .dvc/plots .dvc/plots
COPY --chown=1000:1000 pipeline pipeline
COPY --chown=1000:1000 stages stages
RUN make .venv/installed PYTHON=python3

ENV PATH=/opt/l2s/.venv/bin:$PATH
WORKDIR /study
ENTRYPOINT ["l2s"]
CMD ["--help"]
