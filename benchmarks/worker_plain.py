"""``celery -A benchmarks.worker_plain worker``"""

import os

from benchmarks import apps

app = apps.plain(os.environ["BENCH_BROKER"], os.environ["BENCH_RESULTS"]).app
