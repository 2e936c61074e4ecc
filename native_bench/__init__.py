"""Speed, always beside a floor or a rival in the same run: `python -m native_bench`, or one row: `python -m native_bench.bench_<thing>`."""
