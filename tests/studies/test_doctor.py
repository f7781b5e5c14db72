import http.server
import threading

import pytest

from conftest import environment, run_python
from vbpr.studies import doctor


@pytest.fixture
def offline(monkeypatch):
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")


def test_a_sound_machine_has_nothing_wrong_and_trains(offline):
    findings = {finding.name: finding for finding in doctor.examine()}
    assert findings["self-test"].state == "ok" and "AUC 0.9" in findings["self-test"].words
    assert findings["versions"].words.startswith("vbpr ") and findings["model hub"].state == "missing"
    assert not [
        name for name, finding in findings.items() if finding.state == "wrong" and name not in ("memory", "disk")
    ]


def test_what_is_missing_comes_with_the_line_that_installs_it(offline, monkeypatch):
    monkeypatch.setitem(doctor.OPTIONAL, "no_such_module", ("no-such-package", "nothing"))
    finding = next(f for f in doctor.examine() if f.name == "no_such_module")
    assert (finding.state, finding.words) == ("missing", "for nothing: pip install no-such-package")


def test_a_training_that_fails_is_a_finding(offline, monkeypatch):
    def fails(*_):
        raise RuntimeError("this processor cannot count")

    monkeypatch.setattr(doctor, "fit", fails)
    finding = doctor.self_test()
    assert finding.state == "wrong" and finding.words == "RuntimeError: this processor cannot count"


class Answers(http.server.BaseHTTPRequestHandler):
    def do_HEAD(self):
        self.send_response(403)
        self.end_headers()

    def log_message(self, *_):
        pass


def test_a_hub_that_answers_is_there_and_one_that_does_not_is_missing(monkeypatch):
    monkeypatch.delenv("HF_HUB_OFFLINE", raising=False)
    with http.server.HTTPServer(("127.0.0.1", 0), Answers) as server:
        monkeypatch.setenv("HF_ENDPOINT", f"http://127.0.0.1:{server.server_port}")
        threading.Thread(target=server.serve_forever, daemon=True).start()
        assert doctor.hub().state == "ok"
        server.shutdown()
    assert doctor.hub().state == "missing" and "--backbone lite0" in doctor.hub().words
    monkeypatch.setenv("HF_ENDPOINT", "no address")
    assert doctor.hub().state == "missing"


@pytest.mark.slow
def test_the_command_says_each_and_exits_by_what_is_wrong(tmp_path):
    done = run_python("-m", "vbpr", "doctor", "--folder", tmp_path, env=environment() | {"HF_HUB_OFFLINE": "1"})
    lines = done.stdout.splitlines()
    assert lines[-1].startswith("ok      self-test") and done.returncode == (2 if "wrong " in done.stdout else 0)
