"""Prints tables of what scripts/bench-producer.sh or bench-consumer.sh measured: `table.py FILE`, a JSON object a line. Each figure
is a median."""
import json
import sys
from statistics import median

ORDER = ["floor", "muslin", "muslin-acks", "franz-go", "krafka", "rdkafka-base", "rdkafka-future", "rdkafka-stream", "java"]


def groups(runs, key):
    found = {}
    for run in runs:
        found.setdefault(key(run), []).append(run)
    return found


def table(heads, rows):
    print("| " + " | ".join(heads) + " |\n|" + "---|" * len(heads))
    for row in rows:
        print("| " + " | ".join(str(cell) for cell in row) + " |")
    print()


def name(peer, level):
    return peer if level is None else f"{peer}, level {level}"


def ratio(mine, theirs):
    return f"{mine / theirs:.2f} x" if theirs else ""


def per_record(run):
    """Bytes on the broker; what was sent before the clock started is there too."""
    return run["log_bytes"] / (run["count"] + run.get("warm", 0))


def of(found, field):
    field = field if callable(field) else lambda run, field=field: run[field]
    return {who: median(field(run) for run in runs) for who, runs in found.items()}


def load(op, codec, size, runs):
    found = groups(runs, lambda run: (run["peer"], run.get("level")))
    order = sorted(found, key=lambda who: (ORDER.index(who[0]), who[1] or 0))
    rss, rate = of(found, "max_rss_kb"), of(found, "msgs_per_s")
    print(f"**{op}, {codec}, {size} B**: {median(run['count'] for run in runs):,.0f} records, {min(map(len, found.values()))} runs each\n")
    if op == "latency":
        p50, p99, p999 = of(found, "p50_us"), of(found, "p99_us"), of(found, "p999_us")
        table(["client", "p50, µs", "p99, µs", "p99.9, µs", "memory, MB"],
              [[name(*who), f"{p50[who]:.0f}", f"{p99[who]:.0f}", f"{p999[who]:.0f}", f"{rss[who] / 1024:.1f}"] for who in order])
        figures = [("p50", p50), ("p99", p99)]
    else:
        cpu, size_of = of(found, "cpu_us_per_msg"), of(found, per_record)
        least = {who: min(run["cpu_us_per_msg"] for run in found[who]) for who in order}
        most = {who: max(run["cpu_us_per_msg"] for run in found[who]) for who in order}
        table(["client", "CPU a record, µs", "least to most", "records/s", "memory, MB", "bytes a record on the broker"],
              [[name(*who), f"{cpu[who]:.3f}", f"{least[who]:.3f} to {most[who]:.3f}", f"{rate[who]:,.0f}", f"{rss[who] / 1024:.1f}",
                f"{size_of[who]:.1f}"] for who in order])
        figures = [("CPU", cpu), ("memory", rss)]
    mine = ("muslin", None)
    if mine not in found:
        return
    for what, values in figures:
        others = [who for who in order if who[0] not in ("muslin", "floor")]
        if not others:
            continue
        best = min(others, key=values.get)
        parts = [f"{ratio(values[mine], values[best])} the best peer's ({name(*best)})"]
        if op == "produce" and codec != "none":
            fair = [who for who in others if abs(size_of[who] / size_of[mine] - 1) <= 0.05]
            near = min(fair, key=values.get) if fair else None
            parts.append(f"{ratio(values[mine], values[near])} the best's at a size within 5 % ({name(*near)})" if near
                         else "no peer's size is within 5 %")
        for who in [("franz-go", None), ("rdkafka-base", None), ("floor", None)]:
            if who in found and who != best and what != "memory" or who in found and who[0] == "franz-go" and who != best:
                parts.append(f"{ratio(values[mine], values[who])} {who[0]}'s")
        print(f"- muslin's {what}: " + ", ".join(parts))
    print()


def consumed(codec, size, runs):
    found = groups(runs, lambda run: run["peer"])
    order = sorted(found, key=ORDER.index)
    cpu, rate, rss = of(found, "cpu_us_per_msg"), of(found, "msgs_per_s"), of(found, "max_rss_kb")
    spread = {who: [run["cpu_us_per_msg"] for run in found[who]] for who in order}
    # The process since it began, with the group joined.
    whole = {who: median(run["cpu_all_s"] * 1e6 / run["count"] for run in found[who]) if "cpu_all_s" in found[who][0] else None
             for who in order}
    print(f"**consume, {codec}, {size} B**: {median(run['count'] for run in runs):,.0f} records, {min(map(len, found.values()))} runs each\n")
    table(["client", "CPU a record, µs", "least to most", "in all, µs", "records/s", "memory, MB", "x franz-go's CPU",
           "x floor's CPU"],
          [[who, f"{cpu[who]:.3f}", f"{min(spread[who]):.3f} to {max(spread[who]):.3f}", "" if whole[who] is None else f"{whole[who]:.3f}",
            f"{rate[who]:,.0f}", f"{rss[who] / 1024:.1f}", ratio(cpu[who], cpu.get("franz-go")), ratio(cpu[who], cpu.get("floor"))]
           for who in order])
    others = [who for who in order if who != "floor" and not who.startswith("muslin")]
    for mine in [who for who in order if who.startswith("muslin")]:
        for what, values in [("CPU", cpu), ("memory", rss)]:
            best = min(others, key=values.get, default=None)
            parts = [f"{ratio(values[mine], values[best])} the best peer's ({best})"] if best else []
            parts += [f"{ratio(values[mine], values[who])} {who}'s" for who in ("franz-go", "rdkafka-base", "floor")
                      if who in found and who != best and (what != "memory" or who != "floor")]
            print(f"- {mine}'s {what}: " + ", ".join(parts or ["nothing to compare it with"]))
    print()


def idle(runs):
    found = groups(runs, lambda run: run["peer"])
    share, rss = of(found, "cpu_percent"), of(found, "max_rss_kb")
    spread = {who: [run["cpu_percent"] for run in found[who]] for who in found}
    print(f"**idle, {runs[0]['partitions']:,} partitions**: {min(map(len, found.values()))} runs each\n")
    table(["client", "CPU, % of a core", "least to most", "memory, MB"],
          [[who, f"{share[who]:.3f}", f"{min(spread[who]):.3f} to {max(spread[who]):.3f}", f"{rss[who] / 1024:.1f}"]
           for who in sorted(found, key=ORDER.index)])


def partitions(runs):
    found = groups(runs, lambda run: run["partitions"])
    cpu, rate, rss = of(found, "cpu_us_per_msg"), of(found, "msgs_per_s"), of(found, "max_rss_kb")
    one = cpu[min(cpu)]
    table(["partitions", "CPU a record, µs", "of one partition's", "records/s", "memory, MB"],
          [[f"{n:,}", f"{cpu[n]:.3f}", ratio(cpu[n], one), f"{rate[n]:,.0f}", f"{rss[n] / 1024:.1f}"] for n in sorted(found)])


def main():
    with open(sys.argv[1], encoding="utf-8") as lines:
        runs = [json.loads(line) for line in lines if line.strip()]
    if len({run["partitions"] for run in runs}) > 1:
        partitions(runs)
        return
    for (op, codec, size), these in groups(runs, lambda run: (run["op"], run["codec"], run["size"])).items():
        if op == "consume":
            consumed(codec, size, these)
        elif op == "idle":
            idle(these)
        else:
            load(op, codec, size, these)


main()
