"""Machinery's API in Python; the Go program that does the same is in the comments.

export BROKER=redis://127.0.0.1:6379 RESULT_BACKEND=redis://127.0.0.1:6379
python adder.py worker
python adder.py send
"""

from __future__ import annotations

import sys

from machinery_compat import Config, Server, Signature, TaskError, new_signature


# func Add(numbers ...int64) (int64, error)
def add(*numbers: int) -> int:
    return sum(numbers)


# func Divide(dividend, divisor int64) (int64, int64, error)
def divide(dividend: int, divisor: int) -> tuple[int, int]:
    """Two results; an exception is the error."""
    return dividend // divisor, dividend % divisor


def new_server() -> Server:
    # cnf, err := config.NewFromEnvironment()
    # server := machinery.NewServer(cnf, broker, backend, lock)
    server = Server(Config.from_env())
    # err = server.RegisterTasks(map[string]interface{}{"add": Add, "divide": Divide})
    server.register_tasks({"add": add, "divide": divide})
    return server


def work() -> None:
    # worker := server.NewWorker("adder", 4)
    worker = new_server().new_worker("adder", 4)
    # worker.SetPreTaskHandler(func(signature *tasks.Signature) { ... })
    worker.set_pre_task_handler(before)
    print("Waiting for tasks. To exit press Ctrl-C", flush=True)
    # err := worker.Launch()
    worker.launch()


def before(signature: Signature) -> None:
    print(f"running {signature.name}", flush=True)


def send() -> None:
    server = new_server()
    # signature := &tasks.Signature{Name: "add", Args: []tasks.Arg{{Type: "int64", Value: 20}, ...}}
    signature = new_signature("add", 20, 22)
    # result, err := server.SendTask(signature)
    result = server.send_task(signature)
    # values, err := result.Get(100 * time.Millisecond)
    print("add:", result.get(0.1))

    print("divide:", server.send_task(new_signature("divide", 7, 2)).get_with_timeout(10, 0.1))
    try:
        server.send_task(new_signature("divide", 7, 0)).get_with_timeout(10, 0.1)
    except TaskError as error:
        # err.Error()
        print("divide by zero:", error)


if __name__ == "__main__":
    {"worker": work, "send": send}[sys.argv[1]]()
