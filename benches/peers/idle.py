"""What a process costs while it waits: `idle.py PID FILE COUNT REST SECONDS`. FILE is what it prints, a line a record: when it has
COUNT, the process is left alone for REST seconds, and then its CPU time over SECONDS is printed as a JSON object."""
import json
import sys
import time


def lines(path):
    with open(path, "rb") as file:
        return sum(chunk.count(b"\n") for chunk in iter(lambda: file.read(1 << 16), b""))


def cpu(pid):
    """User and system time of all its threads, ended ones too: the clock of another process (clock_getcpuclockid)."""
    return time.clock_gettime((~pid << 3) | 2)


def peak(pid):
    with open(f"/proc/{pid}/status", encoding="utf-8") as status:
        return next((int(line.split()[1]) for line in status if line.startswith("VmHWM:")), 0)


def main():
    pid, path, count, rest, seconds = int(sys.argv[1]), sys.argv[2], int(sys.argv[3]), float(sys.argv[4]), float(sys.argv[5])
    end = time.monotonic() + 120
    while (read := lines(path)) < count:
        if time.monotonic() > end:
            sys.exit(f"{read} of {count} records were read in 120 s")
        time.sleep(0.2)
        cpu(pid)  # fails when it has ended
    time.sleep(rest)
    began, before = time.monotonic(), cpu(pid)
    time.sleep(seconds)
    wall, used = time.monotonic() - began, cpu(pid) - before
    print(json.dumps({"op": "idle", "count": 0, "wall_s": round(wall, 3), "cpu_s": round(used, 5), "max_rss_kb": peak(pid),
                      "cpu_percent": round(100 * used / wall, 4)}))


main()
