"""Publishing an export, with a stand-in for the hub's API that takes what the API takes, and nothing else."""

from types import SimpleNamespace
from unittest import mock

import huggingface_hub
import pytest
from huggingface_hub import errors

from sid_jax import export
from sid_jax.errors import UserError
from sid_jax.formats.hub_push import check_push, push
from sid_jax.runtime.storage.json_files import write_json


@pytest.fixture
def hub(monkeypatch):
    api = mock.create_autospec(huggingface_hub.HfApi, instance=True)
    api.create_repo.return_value = huggingface_hub.RepoUrl("https://huggingface.co/org/name")
    monkeypatch.setattr(huggingface_hub, "HfApi", lambda: api)
    return api


@pytest.fixture
def exported(tmp_path):
    write_json(tmp_path / "sid_jax_files.json", {"README.md": "0", "unet/config.json": "0", "vae/config.json": "0"})
    (tmp_path / "notes.txt").write_text("mine")
    return tmp_path


def http(status):
    return errors.HfHubHTTPError(
        "first line\nsecond", response=SimpleNamespace(status_code=status, headers={}, request=None)
    )


@pytest.mark.parametrize(("private", "asked"), [(False, None), (True, True)])
def test_what_export_wrote_is_uploaded_and_nothing_else(hub, exported, private, asked):
    assert push(exported, "org/name", private=private) == "https://huggingface.co/org/name"
    hub.create_repo.assert_called_once_with("org/name", private=asked, exist_ok=True)
    (uploaded,) = hub.upload_folder.call_args_list
    given = uploaded.kwargs
    assert (given["repo_id"], given["folder_path"]) == ("org/name", exported)
    assert set(given["allow_patterns"]) == {
        "README.md", "unet/config.json", "vae/config.json", "sid_jax_files.json",
    }  # fmt: skip
    assert given["delete_patterns"] == ["unet/*", "vae/*"]


@pytest.mark.parametrize(
    "name", ["name", "org/name/file", "org/na me", "/home/me/exported", "org/", "org/a--b", "", "a\nb/c"]
)
def test_a_bad_name(hub, name):
    with pytest.raises(UserError, match=r"^--push .*: write ORGANISATION/NAME, as the hub names repositories$"):
        check_push(name)
    hub.whoami.assert_not_called()


@pytest.mark.parametrize(
    ("raised", "says"),
    [
        (errors.LocalTokenNotFoundError("x"), "no token of the hub is here; run `hf auth login`, or set HF_TOKEN"),
        (errors.OfflineModeIsEnabled("x"), "HF_HUB_OFFLINE is set; unset it"),
        (http(401), "the hub does not take the token"),
        (http(403), "the hub's token may not write there"),
        (http(500), r"the hub refused it \(first line\)$"),
        (OSError("no route\nto host"), r"the hub can't be reached \(no route\)$"),
    ],
)
@pytest.mark.parametrize("call", ["whoami", "create_repo", "upload_folder"])
def test_what_the_hub_answers_is_one_line(hub, exported, call, raised, says):
    getattr(hub, call).side_effect = raised
    with pytest.raises(UserError, match=f"^--push org/name: {says}"):
        check_push("org/name")
        push(exported, "org/name")


def test_without_a_token_no_export_begins(hub, tmp_path, monkeypatch):
    hub.whoami.side_effect = errors.LocalTokenNotFoundError("x")
    monkeypatch.setattr(export, "export", lambda *_, **__: pytest.fail("opened the run"))
    with pytest.raises(UserError, match="no token of the hub"):
        export.main(["--run", "runs/x", "--out", str(tmp_path / "out"), "--push", "org/name"])
    with pytest.raises(UserError, match="--private is of the repository that --push names"):
        export.main(["--run", "runs/x", "--out", str(tmp_path / "out"), "--private"])


def test_the_command_pushes_what_it_wrote(hub, tmp_path, monkeypatch, capsys):
    def write(run, folder, step, overwrite):
        write_json(tmp_path / "out/sid_jax_files.json", {"README.md": "0"})

    (tmp_path / "out").mkdir()
    monkeypatch.setattr(export, "export", write)
    export.main(["--run", "runs/x", "--out", str(tmp_path / "out"), "--push", "org/name"])
    assert hub.upload_folder.call_args.kwargs["folder_path"] == tmp_path / "out"
    assert capsys.readouterr().out.endswith("pushed it to https://huggingface.co/org/name\n")
