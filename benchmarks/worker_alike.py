"""``celery -A benchmarks.worker_alike worker``"""

import os

from benchmarks import apps

app = apps.alike(os.environ["BENCH_BROKER"], os.environ["BENCH_RESULTS"]).app
