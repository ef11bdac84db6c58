# A Python worker. For one of your own: mount or copy your tasks, and name them: celery -A machinery_compat worker -I my.tasks
#   docker build --build-arg EXTRAS=redis,mongodb .
FROM python:3.12-slim
ARG EXTRAS=redis,amqp
RUN useradd --create-home worker
WORKDIR /app
COPY setup.cfg pyproject.toml README.md LICENSE ./
COPY machinery_compat machinery_compat
RUN pip install --no-cache-dir ".[$EXTRAS]"
COPY examples/brokers/tasks.py examples/brokers/call.py examples/brokers/prepare.py ./
USER worker
CMD ["celery", "-A", "machinery_compat", "worker", "-I", "tasks", "--loglevel", "INFO"]
