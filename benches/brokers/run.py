"""Runs the same load on an embedded broker and on the real one, and prints a table. Started by scripts/bench-brokers.sh.

`run.py COUNT ROUNDS AMQPLOAD BROKER...` (RabbitMQ gets a fifth of COUNT), where a broker is `kafka|amqp NAME PID ADDRESS` in one argument. For each load and
broker: throughput as the client saw it, and the CPU time of the broker's process per million messages (user and system, of it
and its children, from /proc/PID/stat). The first load of each is a warm-up and not counted; of the rounds the one with the
least CPU is shown, and the brokers take turns. Memory is the resident set after the last round, with all messages of one
round still there for Kafka, and none for RabbitMQ.
"""
import json
import os
import subprocess
import sys
import uuid
from pathlib import Path

HERE = Path(__file__).parent
SIZE = 100
TICK = os.sysconf("SC_CLK_TCK")


def stat(pid):
    return Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()


def tree(pid):
    """The process and all below it."""
    parents = {}
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                parents.setdefault(int(stat(entry.name)[1]), []).append(int(entry.name))
            except (FileNotFoundError, ProcessLookupError):
                pass
    found, left = [], [pid]
    while left:
        found.append(left.pop())
        left += parents.get(found[-1], [])
    return found


def cpu(pid):
    return sum(int(stat(p)[11]) + int(stat(p)[12]) for p in tree(pid)) / TICK


def resident(pid):
    status = [Path(f"/proc/{p}/status").read_text().splitlines() for p in tree(pid)]
    return sum(int(line.split()[1]) for lines in status for line in lines if line.startswith("VmRSS")) / 1024


def load(broker, command, count):
    before = cpu(broker["pid"])
    run = subprocess.run([str(part) for part in command], stdout=subprocess.PIPE, check=True)
    seconds = json.loads(run.stdout)["seconds"]
    return {"rate": count / seconds, "cpu": (cpu(broker["pid"]) - before) / count * 1e6}


def kafka(broker, count, amqpload):
    for codec in ("none", "lz4"):
        topic = f"bench-{uuid.uuid4().hex[:12]}"
        for op in ("produce", "consume"):
            command = [sys.executable, HERE / "kafka_load.py", op, broker["address"], topic, count, SIZE, codec]
            yield f"{op}, {codec}", load(broker, command, count)
        broker["resident"] = resident(broker["pid"])
        delete(broker["address"], topic)


def delete(bootstrap, topic):
    from confluent_kafka.admin import AdminClient

    admin = AdminClient({"bootstrap.servers": bootstrap})
    for deleted in admin.delete_topics([topic]).values():
        deleted.result(30)


def amqp(broker, count, amqpload):
    queue = f"bench-{uuid.uuid4().hex[:12]}"
    for op in ("publish", "consume"):
        yield op, load(broker, [amqpload, op, broker["address"], queue, count, SIZE], count)
    broker["resident"] = resident(broker["pid"])


def main():
    count, rounds, amqpload = int(sys.argv[1]), int(sys.argv[2]), sys.argv[3]
    brokers = []
    for argument in sys.argv[4:]:
        kind, name, pid, address = argument.split(" ")
        brokers.append({"kind": kind, "name": name.replace("_", " "), "pid": int(pid), "address": address})
    best = {}
    for broker in brokers:
        broker["idle"] = resident(broker["pid"])
    for number in range(rounds + 1):
        for broker in brokers:
            # RabbitMQ takes some ten times as long for a message.
            full = count if broker["kind"] == "kafka" else count // 5
            of_it = full if number else max(full // 5, 1)
            for what, measured in {"kafka": kafka, "amqp": amqp}[broker["kind"]](broker, of_it, amqpload):
                print(f"# {number}: {broker['name']}: {what}: {measured}", file=sys.stderr)
                key = (broker["kind"], what, broker["name"])
                if number and (key not in best or measured["cpu"] < best[key]["cpu"]):
                    best[key] = measured
    print("| load | broker | messages/s | CPU s per million | CPU against the real one |\n|---|---|---|---|---|")
    for (kind, what, name), measured in sorted(best.items()):
        real = [b for b in brokers if b["kind"] == kind][-1]["name"]
        ratio = measured["cpu"] / best[(kind, what, real)]["cpu"]
        shown = "" if name == real else f"{ratio:.2f} x"
        print(f"| {what} | {name} | {measured['rate']:,.0f} | {measured['cpu']:.2f} | {shown} |")
    print("\n| broker | resident idle, MB | after | load average |\n|---|---|---|---|")
    for broker in brokers:
        print(f"| {broker['name']}, {broker['kind']} | {broker['idle']:.1f} | {broker['resident']:.0f} | {os.getloadavg()[0]:.1f} |")


main()
