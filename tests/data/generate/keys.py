"""keys.py IN OUT: puts librdkafka's `consistent` partition of 2^31 - 1 behind each key of Keys.java."""

import ctypes
import glob
import os
import struct
import sys

import confluent_kafka

MOST = 2**31 - 1
folder = os.path.join(os.path.dirname(os.path.dirname(confluent_kafka.__file__)), "confluent_kafka.libs")
lib = ctypes.CDLL(glob.glob(os.path.join(folder, "librdkafka*"))[0])


def partitioner(name):
    call = getattr(lib, "rd_kafka_msg_partitioner_" + name)
    call.restype = ctypes.c_int32
    call.argtypes = [ctypes.c_void_p, ctypes.c_char_p, ctypes.c_size_t, ctypes.c_int32, ctypes.c_void_p, ctypes.c_void_p]
    return lambda key: call(None, key, len(key), MOST, None, None)


consistent, murmur2 = partitioner("consistent"), partitioner("murmur2")
data, at = open(sys.argv[1], "rb").read(), 0
with open(sys.argv[2], "wb") as out:
    while at < len(data):
        end = at + 1 + data[at] + 4
        entry, key = data[at:end], data[at + 1 : end - 4]
        java = struct.unpack(">I", entry[-4:])[0]
        assert murmur2(key) == (java & 0x7FFFFFFF) % MOST, f"Java and librdkafka differ for {key!r}"
        out.write(entry + struct.pack(">I", consistent(key)))
        at = end
