"""What a lost link still carries is not run when its client was closed meanwhile."""

from __future__ import annotations

from txharedis import create_client
from txharedis.testing.simulation import World
from txharedis.testing.simulation.connection import Connection


def test_late_bytes_find_the_journal_of_a_client_that_was_closed() -> None:
    with World(1) as world:
        world.trio()
        process = world.process()
        client = create_client(list(world.servers), reactor=process)
        world.wait(client.when_ready())
        master = world.servers[str(client.master)]
        execute, batches = master.execute, []

        def recorded(link: Connection, words: list[bytes]) -> bytes | None:
            if b"INCRBY" in words:
                batches.append((link, words))
            return execute(link, words)

        master.execute = recorded  # type: ignore[method-assign]
        world.network.cut(master, process, both=False, lossy=True)
        reply = client.incr("n")
        world.run_until(lambda: batches)
        world.network.break_links(process, master)
        world.network.heal(master, process)
        assert world.wait(reply) == 1
        link, batch = batches[0]
        world.wait(client.quit())
        # The copy that an old link has held up: it was written before any was answered.
        assert execute(link, batch) == b"*2\r\n:2\r\n:1\r\n"
        assert master.keys.dbs[0][b"n"] == b"1"
        world.run(61.0)
        assert not [key for key in master.keys.dbs[15] if b"journal" in key]
