"""``celery -A benchmarks.worker_ours worker``"""

import os

from benchmarks import apps

app = apps.ours(os.environ["BENCH_BROKER"], os.environ["BENCH_RESULTS"]).app
