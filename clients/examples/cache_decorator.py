"""A cache that processes share: a decorator for slow functions, whose results outlive the process.

    python cache_decorator.py --url tcp://127.0.0.1:5570 30

Of many who ask for the same result at the same time one computes it, and the others wait for that; if it
dies, its claim expires and another computes. A result lives as long as you say.
"""

from __future__ import annotations

import argparse
import functools
import json
import time
from collections.abc import Callable
from typing import TypeVar

import kvzmq

T = TypeVar("T")

CLAIM_S = 30.0
"""How long a computation may take before others try as well."""


def cached(
    table: kvzmq.Client, ttl_s: float, name: str | None = None
) -> Callable[[Callable[..., T]], Callable[..., T]]:
    """Keep a function's results in the table for `ttl_s` seconds, by its name and arguments.

    Arguments have to be what JSON can say, results what the table can keep.
    """

    def decorate(function: Callable[..., T]) -> Callable[..., T]:
        cache = table.namespace(f"cache/{name or function.__qualname__}/")

        @functools.wraps(function)
        def ask(*args: object, **options: object) -> T:
            key = json.dumps([args, options], sort_keys=True)
            while True:
                found = cache.lookup_many([key])
                if key in found:
                    return found[key]  # type: ignore[no-any-return]
                try:
                    with cache.transaction({key: kvzmq.ABSENT, f"claim/{key}": kvzmq.ABSENT}) as t:
                        t.insert(f"claim/{key}", True, ttl_s=CLAIM_S)
                except kvzmq.CheckFailed:
                    time.sleep(0.02)  # somebody computes it
                    continue
                try:
                    result = function(*args, **options)
                    cache.insert(key, result, ttl_s=ttl_s)
                    return result
                finally:
                    cache.remove_many([f"claim/{key}"])

        return ask

    return decorate


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--url", default="tcp://127.0.0.1:5570")
    parser.add_argument("number", type=int)
    options = parser.parse_args()
    with kvzmq.connect(options.url) as table:

        @cached(table, ttl_s=60.0)
        def fibonacci(number: int) -> int:
            print("computing", number, flush=True)
            return number if number < 2 else fibonacci(number - 1) + fibonacci(number - 2)

        print(fibonacci(options.number))


if __name__ == "__main__":
    main()
