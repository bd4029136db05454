"""What schemathesis is told of this daemon: which machines there are, what is not safe to try on a host, and two checks more.

Runs inside of schemathesis, in its own environment. The daemon runs guests' agents on the host itself, so no made-up program
may be started here; everything else goes to the daemon as it was made up.
"""

import json
import os
import socket
import http.client
import zlib

import jsonschema_rs
import schemathesis

SOCKET = os.environ["CONTRACT_SOCKET"]
DOCUMENT = json.load(open(os.environ["CONTRACT_DOCUMENT"]))
# A machine that is found again and again, in whatever state the case before left it; and one that keeps the image in use.
ANCHOR, HOLDER = "anchor", "holder"
# Created machines stay for a while, as much as the host may have to bear at once.
MOST = 20

made = []


class Daemon(http.client.HTTPConnection):
    """The daemon itself, without a detour."""

    def __init__(self):
        super().__init__("banger", timeout=60)

    def connect(self):
        self.sock = socket.socket(socket.AF_UNIX)
        self.sock.connect(SOCKET)


def ask(method, path, body=None):
    daemon = Daemon()
    try:
        daemon.request(method, path, body and json.dumps(body))
        answer = daemon.getresponse()
        return answer.status, answer.read()
    finally:
        daemon.close()


@schemathesis.hook
def before_call(context, case, kwargs):
    name = case.operation.definition.raw["operationId"]
    parameters = case.path_parameters or {}
    # Half of the names are those of a machine, and of an image, that there are.
    for parameter, there in (("vm", ANCHOR), ("image", "debian")):
        value = parameters.get(parameter)
        if isinstance(value, str) and zlib.crc32(value.encode(errors="replace")) % 2:
            parameters[parameter] = there
    if parameters.get("vm") == ANCHOR and ask("GET", f"/v1/vms/{ANCHOR}")[0] == 404:
        ask("POST", "/v1/vms", {"name": ANCHOR})
    if name == "exec" and isinstance(case.body, dict) and isinstance(case.body.get("argv"), list) and case.body["argv"]:
        if isinstance(case.body["argv"][0], str):
            word = case.body["argv"][0]
            case.body["argv"][0] = "true" if zlib.crc32(word.encode(errors="replace")) % 2 else f"no program/{word}"
        case.body.pop("login_shell", None)
    # The other levels are not reached on a host: the daemon would wait for minutes, as it should.
    if name == "waitForVm" and (case.query or {}).get("level") in ("system", "ssh"):
        case.query["level"] = "agent"
    # It would follow until the machine ends.
    if name == "readConsole" and (case.query or {}).get("follow") in (True, "true"):
        case.query["follow"] = "false"


@schemathesis.hook
def after_call(context, case, response):
    name = case.operation.definition.raw["operationId"]
    if name not in ("createVm", "renameVm") or response.status_code != 200 or not response.content:
        return
    last = json.loads(response.content.splitlines()[-1])
    if last["event"] == "result":
        result = last["result"]
        made.append(result["vm"]["id"] if name == "renameVm" else result["id"])
    while len(made) > MOST:
        ask("DELETE", f"/v1/vms/{made.pop(0)}?force=true")


@schemathesis.deserializer("application/x-ndjson")
def first_line(context, response):
    """The document has the schema of one line; `every_line` sees to the others."""
    return json.loads(response.content.splitlines()[0])


def validator(schema):
    return jsonschema_rs.Draft202012Validator({"$ref": f"#/components/schemas/{schema}", "components": DOCUMENT["components"]})


FAILURE = validator("ApiError")
LINES = {name: validator(name) for name in DOCUMENT["components"]["schemas"]}


@schemathesis.check
def every_line(context, response, case):
    """Each line of a stream has the schema that the document says, the first and the last are what they have to be."""
    kind = response.headers.get("content-type", [""])[0]
    if kind != "application/x-ndjson" or not response.content:
        return
    content = case.operation.definition.raw["responses"]["200"]["content"][kind]["schema"]["$ref"]
    lines = [json.loads(line) for line in response.content.splitlines()]
    for line in lines:
        LINES[content.rsplit("/", 1)[1]].validate(line)
    assert lines[0]["event"] in ("started", "reset"), lines[0]
    assert lines[-1]["event"] in ("result", "error", "reset"), lines[-1]


@schemathesis.check
def one_shape(context, response, case):
    """Every refusal is an ApiError as JSON, whatever was asked, and says which daemon it is from."""
    assert response.headers.get("banger-api") == ["1"], dict(response.headers)
    if response.status_code >= 400 and case.method != "HEAD":
        assert response.headers.get("content-type") == ["application/json"], dict(response.headers)
        FAILURE.validate(json.loads(response.content))


@schemathesis.check
def no_failure_of_its_own(context, response, case):
    """Nothing fails by the daemon's fault. This host has no resolver that could be told of names, and is to hear that."""
    if case.operation.definition.raw["operationId"] == "installDns" and response.status_code == 503:
        assert json.loads(response.content)["code"] == "host_unfit"
        return
    assert response.status_code < 500, response.content
