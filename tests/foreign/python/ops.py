"""What the Python programs share: one operation a line on stdin, {"op": NAME, ...}, one answer a line on stdout:
{"ok": VALUE}, {"error": WHAT THE BROKER SAID}, or {"failed": TRACE} for anything else."""
import asyncio, inspect, json, sys, traceback


def text(data):
    return data.decode() if isinstance(data, (bytes, bytearray)) else data


def data(text):
    return None if text is None else text.encode()


def serve(ops, error, idle=None):
    """Answers until stdin ends. `error` makes a broker's error of an exception, or None; `idle` is called while nothing is asked."""

    async def main():
        while True:
            line = asyncio.create_task(asyncio.to_thread(sys.stdin.readline))
            while idle and not line.done():
                idle()
                await asyncio.wait([line], timeout=0.02)
            ask = await line
            if not ask:
                return
            ask = json.loads(ask)
            try:
                answer = getattr(ops, ask.pop("op"))(**ask)
                answer = {"ok": await answer if inspect.isawaitable(answer) else answer}
            except Exception as e:
                told = error(e)
                answer = {"failed": traceback.format_exc()} if told is None else {"error": told}
            print(json.dumps(answer), flush=True)

    asyncio.run(main())
