"""Reads character vectors from the data of an installed R package, without R.

An R package keeps its data in two files, Rdata.rdx (an index) and Rdata.rdb (the objects, each one
compressed). Both hold R's XDR serialisation: "R Internals", chapter 1.8, describes the format."""
import struct
import zlib

NULL, REFERENCE = 254, 255
SYMBOL, PAIRLIST, STRING, LOGICALS, INTEGERS, REALS, STRINGS, LIST = 1, 2, 9, 10, 13, 14, 16, 19
HAS_ATTRIBUTES, HAS_TAG, LATIN_1 = 0x200, 0x400, 0x4000


class RObjectReader:
    """Turns one serialised R object into Python lists, dicts and strings."""

    def __init__(self, data):
        if data[:2] != b"X\n":
            raise ValueError("not an R object in XDR format")
        self.data, self.position, self.symbols = data, 2, []
        version, _writer, _oldest_reader = self.integers(3)
        if version == 3:
            self.take(self.integer())  # the name of the native encoding

    def take(self, size):
        self.position += size
        return self.data[self.position - size:self.position]

    def integers(self, count):
        return list(struct.unpack(f">{count}i", self.take(4 * count)))

    def integer(self):
        return self.integers(1)[0]

    def read(self):
        return self.read_flagged(self.integer())

    def read_flagged(self, flags):
        kind = flags & 0xFF
        if kind == NULL:
            return None
        if kind == REFERENCE:
            return self.symbols[(flags >> 8 or self.integer()) - 1]
        if kind == SYMBOL:
            self.symbols.append(self.read())
            return self.symbols[-1]
        if kind == STRING:
            size = self.integer()  # -1 stands for a missing value
            return self.take(max(size, 0)).decode("latin-1" if flags & LATIN_1 else "utf-8")
        if kind == PAIRLIST:
            return self.read_pairlist(flags)
        return self.read_vector(kind, flags)

    def read_pairlist(self, flags):
        pairs = {}
        while flags & 0xFF == PAIRLIST:
            if flags & HAS_ATTRIBUTES:
                self.read()
            tag = self.read() if flags & HAS_TAG else None
            pairs[tag] = self.read()
            flags = self.integer()
        return pairs

    def read_vector(self, kind, flags):
        length = self.integer()
        if kind in (LOGICALS, INTEGERS):
            values = self.integers(length)
        elif kind == REALS:
            values = list(struct.unpack(f">{length}d", self.take(8 * length)))
        elif kind in (STRINGS, LIST):
            values = [self.read() for _ in range(length)]
        else:
            raise ValueError(f"R objects of type {kind} are not supported")
        names = ((self.read() or {}).get("names") if flags & HAS_ATTRIBUTES else None)
        return dict(zip(names, values)) if names and kind == LIST else values


def read_package_data(folder):
    """Every object in the package's data folder: a dict from its name to its value."""
    gzip_or_zlib = 47
    index = RObjectReader(zlib.decompress((folder / "Rdata.rdx").read_bytes(), gzip_or_zlib)).read()
    if index["compressed"] != [1]:
        raise ValueError(f"{folder}: only zlib-compressed R data are supported")
    database = (folder / "Rdata.rdb").read_bytes()
    length_prefix = 4
    return {name: RObjectReader(zlib.decompress(database[start + length_prefix:start + size])).read()
            for name, (start, size) in index["variables"].items()}
