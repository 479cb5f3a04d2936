"""Which store an address names."""

from indrnn.service.store.protocol import Durability, Store


def open_store(address: str, durability: Durability = "strict") -> Store:
    """Return the store at the path of an SQLite file, or at a redis://, rediss:// or unix:// address. Raises StoreError."""
    if "://" not in address:
        from indrnn.service.store.sqlite import SQLiteStore

        return SQLiteStore(address, durability)
    from indrnn.service.store.redis import RedisStore  # only where it is used: 80 ms of start-up

    return RedisStore(address, durability)
