import logging

from etils import epath

from sid_jax.runtime.run.messages import logging_to


def test_what_is_said_is_shown_and_kept(tmp_path, capsys):
    log = logging.getLogger("sid_jax.train")
    for start in (1, 2):
        with logging_to(epath.Path(tmp_path)):
            log.info("start %d", start)
            log.warning("a disk is full")
    log.info("not in it")
    lines = (tmp_path / "run.log").read_text().splitlines()
    assert [line.split(" ", 2)[2] for line in lines] == [
        "INFO start 1", "WARNING a disk is full", "INFO start 2", "WARNING a disk is full",
    ]  # fmt: skip
    assert capsys.readouterr().err == "start 1\nwarning: a disk is full\nstart 2\nwarning: a disk is full\n"
    assert not logging.getLogger("sid_jax").handlers
