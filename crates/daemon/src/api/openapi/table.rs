//! What the document says of each route beside its method and path. To add one: a line in `routes()`, an entry here under the
//! same name, and `make openapi`.

use banger_api::change::{VmChanged, VmRename, VmSet};
use banger_api::daemon::{Finding, Status, Version};
use banger_api::dial::Dial;
use banger_api::dns::{Dns, DnsInstall};
use banger_api::error::ErrorCode::{self, *};
use banger_api::events::Line;
use banger_api::exec::{Command, ExecRequest, ExecStarted, Terminal};
use banger_api::image::{Image, ImageBuild};
use banger_api::network::{Lease, Network};
use banger_api::operation::Event;
use banger_api::port::Port;
use banger_api::stats::VmStats;
use banger_api::verify::Oddity;
use banger_api::vm::{Vm, VmCreate, VmSshKeys, VmStop};
use schemars::{JsonSchema, Schema, SchemaGenerator};

use crate::api::{console, events, exec, files, vms};

/// Makes the schema of a type.
pub(super) type Make = fn(&mut SchemaGenerator) -> Schema;

/// What the document says of one route.
pub(super) struct Entry {
    pub(super) id: &'static str,
    /// A line.
    pub(super) summary: &'static str,
    /// What the line does not say.
    pub(super) about: &'static str,
    /// The type of its query.
    pub(super) query: Option<Make>,
    /// The type of its body.
    pub(super) body: Option<Make>,
    /// How it answers when it works.
    pub(super) answers: Vec<Answer>,
    /// How it can be refused.
    pub(super) fails: Vec<ErrorCode>,
}

/// An answer of something that works.
pub(super) enum Answer {
    /// `200`, a value.
    Json(Make),
    /// `200`, lines of an operation; with what the last of them can fail.
    Operation(Make, &'static [ErrorCode]),
    /// `200`, lines without an end.
    Lines(Make),
    /// `200`, bytes.
    Bytes(&'static str),
    /// `101`, frames: in which order.
    Frames(&'static str),
    /// `204`.
    Nothing(&'static str),
}

/// What every call to a guest can fail with.
const GUEST: [ErrorCode; 8] =
    [VmNotFound, WrongState, Busy, NoSpace, GuestFailed, GuestUnreachable, Unsupported, Internal];

/// What everything that starts a VM can fail with.
const START: &[ErrorCode] =
    &[Invalid, VmNotFound, WrongState, Busy, NoSpace, HostUnfit, VmmFailed, GuestUnreachable, Cancelled, Internal];

/// What a change of a VM can fail with.
const CHANGE: &[ErrorCode] = &[
    Invalid,
    VmNotFound,
    NameTaken,
    WrongState,
    Busy,
    NoSpace,
    VmmFailed,
    GuestFailed,
    GuestUnreachable,
    Cancelled,
    Internal,
];

/// All of them.
pub(super) fn entries() -> Vec<Entry> {
    vec![
        entry("getOpenApi", "This document").answers(Answer::Json(|_| schemars::json_schema!({ "type": "object" }))),
        entry("getVersion", "Which daemon answers").json::<Version>(),
        entry("getDaemon", "How the daemon is doing").json::<Status>(),
        entry("stopDaemon", "Stop the daemon")
            .about("VMs run on, and the next daemon takes them over. Operations under way are brought to their end first.")
            .answers(Answer::Nothing("The daemon is about to end.")),
        entry("getDoctor", "What this host can do, and what to do about the rest").json::<Vec<Finding>>(),
        entry("fixHost", "Mend what is safe to mend on this host")
            .about("The network, its rules and names are made as they should be; the answer is what is found then.")
            .json::<Vec<Finding>>(),
        entry("verify", "What is there and does not fit the records")
            .about(
                "Links, rules, mounts, processes, files and names on banger's ground are compared with its records: what a VM that is \
                 gone has left, what is somebody else's, what should be there and is not. Nothing is changed. TAPs that wait for VMs \
                 are as they should be.",
            )
            .json::<Vec<Oddity>>()
            .fails(&[Internal]),
        entry("showNetwork", "The network that VMs are in, and whose address is which").json::<Network>().fails(&[Internal]),
        entry("forgetAddress", "Give up the address of a name that no VM has")
            .about("A VM of that name gets another one.")
            .json::<Lease>()
            .fails(&[Invalid, LeaseNotFound, InUse, Internal]),
        entry("getDns", "How this host's programs are told the names of VMs, and whether they are")
            .about("A name is looked up, as programs do it.")
            .json::<Dns>()
            .fails(&[Internal]),
        entry("installDns", "Have this host's programs told the names of VMs")
            .about(
                "By systemd-resolved, or by a block in /etc/hosts, in place of what was set up before. It is looked whether it \
                 works, and undone where it does not. It goes on when the client hangs up.",
            )
            .body::<DnsInstall>()
            .json::<Dns>()
            .fails(&[Invalid, TooLarge, HostUnfit, Internal]),
        entry("uninstallDns", "Undo what was set up for the names of VMs")
            .about("Nothing happens where nothing was. It goes on when the client hangs up.")
            .json::<Dns>()
            .fails(&[HostUnfit, Internal]),
        entry("followEvents", "What happens, as it happens")
            .about(
                "A list and a watch in one: without `since` the first line is a `reset` with all that there is, then every \
                 change follows as it happens, until the client hangs up or the daemon ends. A client that was away gives its \
                 last token as `since` and gets what it missed; where the daemon does not remember that any more (it keeps 4096 \
                 changes, and none of an earlier daemon's), the first line is a `reset` again. So a `reset` replaces all that a \
                 client knows, and every other line changes one thing of it. A VM's `generation` never goes back. A client that \
                 reads too slowly gets `lagged` as its last line. An image's `vms` are those of the moment of its line.",
            )
            .query::<events::Since>()
            .answers(Answer::Lines(SchemaGenerator::subschema_for::<Line>))
            .fails(&[Invalid, Internal]),
        entry("listVms", "All VMs, in the order of their creation").json::<Vec<Vm>>(),
        entry("createVm", "Create a VM, and start it")
            .about("A client that hangs up before the last line cancels it, and nothing of the VM is left.")
            .body::<VmCreate>()
            .operation::<Vm>(&[
                Invalid,
                ImageNotFound,
                NameTaken,
                WrongState,
                Busy,
                NoSpace,
                HostUnfit,
                VmmFailed,
                GuestUnreachable,
                Cancelled,
                VmNotFound,
                Internal,
            ])
            .fails(&[Invalid, TooLarge]),
        entry("showVm", "One VM").json::<Vm>().fails(&[Invalid, VmNotFound]),
        entry("removeVm", "Remove a VM with its disks")
            .about("It goes on when the client hangs up.")
            .query::<vms::Remove>()
            .operation::<Vm>(&[VmNotFound, WrongState, Busy, VmmFailed, Internal])
            .fails(&[Invalid, VmNotFound]),
        entry("setVm", "Change a VM")
            .about("What is absent stays as it is. Each change of the answer says when it takes effect.")
            .body::<VmSet>()
            .operation::<VmChanged>(CHANGE)
            .fails(&[Invalid, TooLarge, VmNotFound]),
        entry("startVm", "Start a VM")
            .about("Nothing happens where it runs. A client that hangs up before the last line cancels it: the VM is stopped then.")
            .operation::<Vm>(START)
            .fails(&[Invalid, VmNotFound]),
        entry("stopVm", "Stop a VM")
            .about("Nothing happens where it does not run. It goes on when the client hangs up.")
            .body::<VmStop>()
            .operation::<Vm>(&[VmNotFound, WrongState, Busy, VmmFailed, Internal])
            .fails(&[Invalid, TooLarge, VmNotFound]),
        entry("restartVm", "Stop a VM, and start it again")
            .about("One that does not run is started. It goes on when the client hangs up.")
            .body::<VmStop>()
            .operation::<Vm>(START)
            .fails(&[Invalid, TooLarge, VmNotFound]),
        entry("renameVm", "Give a VM another name")
            .body::<VmRename>()
            .operation::<VmChanged>(CHANGE)
            .fails(&[Invalid, TooLarge, VmNotFound]),
        entry("addSshKeys", "Let the owners of more SSH keys log in to a VM")
            .about("A guest that runs is told at once. Those that it knows already are passed over; all go with the VM.")
            .body::<VmSshKeys>()
            .json::<Vm>()
            .fails(&[Invalid, TooLarge])
            .fails(&GUEST),
        entry("waitForVm", "Wait until a guest has come up to a level")
            .query::<vms::Wait>()
            .json::<Vm>()
            .fails(&[Invalid])
            .fails(&GUEST),
        entry("exec", "Run a command in a guest")
            .about(
                "With `detached` the answer is JSON, and the command lives on. Without it the request asks for an upgrade, and \
                 the connection becomes the command's: docs/streams.md has its frames.",
            )
            .body::<ExecRequest>()
            .json::<ExecStarted>()
            .answers(Answer::Frames(
                "The daemon sends a message frame first, `started` or `error`; then stdout and stderr frames, an exit frame \
                 last. The client sends stdin, resize and signal frames.",
            ))
            .fails(&[Invalid, TooLarge, GuestNotFound, GuestNotExecutable])
            .fails(&GUEST),
        entry("listCommands", "The detached commands of a guest, newest first")
            .json::<Vec<Command>>()
            .fails(&[Invalid])
            .fails(&GUEST),
        entry("readOutput", "The output of a detached command")
            .query::<exec::Output>()
            .answers(Answer::Frames(
                "The daemon sends a message frame first, `done` or `error`; then stdout and stderr frames; last an exit frame \
                 if the command has ended, else an empty data frame.",
            ))
            .fails(&[Invalid, TooLarge, GuestNotFound])
            .fails(&GUEST),
        entry("dial", "Connect to a TCP port of a guest")
            .about(
                "The guest's agent connects on the guest's own loopback, over the channel: the VM needs no network. The \
                 connection becomes the port's: docs/streams.md has its frames.",
            )
            .body::<Dial>()
            .answers(Answer::Frames(
                "The daemon sends a message frame first, `done` or `error`; then both sides send data frames, each an empty \
                 one when nothing follows from it; or the daemon a failed frame, where the connection broke.",
            ))
            .fails(&[Invalid, TooLarge])
            .fails(&GUEST),
        entry("putFiles", "Copy files to a guest")
            .query::<files::Put>()
            .answers(Answer::Frames(
                "The daemon sends a message frame first, `done` or `error`. Then the client sends a tar stream as data frames, \
                 ended by an empty one; the daemon sends an empty data frame when all is written, or a failed frame.",
            ))
            .fails(&[Invalid, TooLarge, GuestNotFound])
            .fails(&GUEST),
        entry("getFiles", "Copy files from a guest")
            .query::<files::Get>()
            .answers(Answer::Frames(
                "The daemon sends a message frame first, `done` or `error`; then a tar stream as data frames, ended by an \
                 empty one, or a failed frame.",
            ))
            .fails(&[Invalid, TooLarge, GuestNotFound])
            .fails(&GUEST),
        entry("readConsole", "What a guest's kernel and init wrote to its console")
            .query::<console::Log>()
            .answers(Answer::Bytes("The console's log: text, and what else was written."))
            .fails(&[Invalid, VmNotFound, Internal]),
        entry("attachConsole", "Read along and type at a guest's console")
            .body::<Terminal>()
            .answers(Answer::Frames(
                "The daemon sends a message frame first, with whether a shell runs there; then stdout frames, an empty data \
                 frame when the VM ends. The client sends stdin and resize frames.",
            ))
            .fails(&[Invalid, TooLarge, VmNotFound, WrongState]),
        entry("listPorts", "What listens in a VM's guest, and where it is reached").json::<Vec<Port>>().fails(&GUEST),
        entry("measureVm", "How busy a VM is").json::<VmStats>().fails(&[Invalid, VmNotFound, WrongState]),
        entry("measureVms", "How busy the VMs that run are").json::<Vec<VmStats>>(),
        entry("listImages", "All images that can be used").json::<Vec<Image>>().fails(&[Internal]),
        entry("buildImage", "Build an image")
            .about("A client that hangs up before the last line cancels it, and nothing of the image is left.")
            .body::<ImageBuild>()
            .operation::<Image>(&[Invalid, NameTaken, NoSpace, HostUnfit, Cancelled, Internal])
            .fails(&[Invalid, TooLarge]),
        entry("showImage", "One image").json::<Image>().fails(&[Invalid, ImageNotFound, Internal]),
        entry("removeImage", "Remove an image")
            .about("It goes on when the client hangs up.")
            .json::<Image>()
            .fails(&[Invalid, ImageNotFound, Busy, InUse, Internal]),
    ]
}

fn entry(id: &'static str, summary: &'static str) -> Entry {
    Entry { id, summary, about: "", query: None, body: None, answers: Vec::new(), fails: Vec::new() }
}

impl Entry {
    fn about(self, about: &'static str) -> Entry {
        Entry { about, ..self }
    }

    fn query<T: JsonSchema>(self) -> Entry {
        Entry { query: Some(T::json_schema), ..self }
    }

    fn body<T: JsonSchema>(self) -> Entry {
        Entry { body: Some(SchemaGenerator::subschema_for::<T>), ..self }
    }

    fn json<T: JsonSchema>(self) -> Entry {
        self.answers(Answer::Json(SchemaGenerator::subschema_for::<T>))
    }

    fn operation<T: JsonSchema>(self, last: &'static [ErrorCode]) -> Entry {
        self.answers(Answer::Operation(SchemaGenerator::subschema_for::<Event<T>>, last))
    }

    fn answers(mut self, answer: Answer) -> Entry {
        self.answers.push(answer);
        self
    }

    fn fails(mut self, codes: &[ErrorCode]) -> Entry {
        self.fails.extend(codes);
        // Who names a VM may give the beginning of its id.
        if codes.contains(&VmNotFound) {
            self.fails.push(Ambiguous);
        }
        self
    }
}
