# A Python worker; mount or copy your tasks and name them: celery -A machinery_compat worker -I my.tasks
FROM python:3.12-slim
RUN useradd --create-home worker
WORKDIR /app
COPY setup.cfg pyproject.toml README.md LICENSE ./
COPY machinery_compat machinery_compat
RUN pip install --no-cache-dir '.[redis,amqp]'
COPY examples/demo/demo_tasks.py ./
USER worker
CMD ["celery", "-A", "machinery_compat", "worker", "-I", "demo_tasks", "--loglevel", "INFO"]
