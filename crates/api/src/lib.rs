//! What banger's command line and daemon say to each other: HTTP/1.1 and JSON over a unix socket.
//!
//! | request | body | answer |
//! | --- | --- | --- |
//! | `GET /v1/version` | | [`daemon::Version`] |
//! | `GET /v1/daemon` | | [`daemon::Status`] |
//! | `POST /v1/daemon/stop` | | `204`, then the daemon ends; VMs run on |
//! | `GET /v1/doctor` | | [`daemon::Finding`]s |
//! | `GET /v1/dns` | | [`dns::Dns`] |
//! | `POST /v1/dns/install` | [`dns::DnsInstall`] | [`dns::Dns`] |
//! | `POST /v1/dns/uninstall` | | [`dns::Dns`] |
//! | `POST /v1/doctor/fix` | | [`daemon::Finding`]s, after what is safe to mend is mended |
//! | `GET /v1/openapi.json` | | this table and its types for programs: OpenAPI 3.1 |
//! | `GET /v1/events?since=` | | [`events::Line`]s, as things happen |
//! | `GET /v1/verify` | | [`verify::Oddity`]s: what does not fit the records |
//! | `GET /v1/network` | | [`network::Network`] |
//! | `DELETE /v1/network/leases/{name}` | | [`network::Lease`] |
//! | `GET /v1/vms` | | [`vm::Vm`]s |
//! | `POST /v1/vms` | [`vm::VmCreate`] | events, result [`vm::Vm`] |
//! | `GET /v1/vms/{vm}` | | [`vm::Vm`] |
//! | `PATCH /v1/vms/{vm}` | [`change::VmSet`] | events, result [`change::VmChanged`] |
//! | `POST /v1/vms/{vm}/rename` | [`change::VmRename`] | events, result [`change::VmChanged`] |
//! | `DELETE /v1/vms/{vm}?force=` | | events, result [`vm::Vm`] |
//! | `POST /v1/vms/{vm}/start` | | events, result [`vm::Vm`] |
//! | `POST /v1/vms/{vm}/stop` | [`vm::VmStop`] | events, result [`vm::Vm`] |
//! | `POST /v1/vms/{vm}/restart` | [`vm::VmStop`] | events, result [`vm::Vm`] |
//! | `POST /v1/vms/{vm}/ssh-keys` | [`vm::VmSshKeys`] | [`vm::Vm`] |
//! | `GET /v1/vms/{vm}/wait?level=` | | [`vm::Vm`], when the level is reached |
//! | `POST /v1/vms/{vm}/exec` | [`exec::ExecRequest`] | `101`, then [`frame`]s; detached: [`exec::ExecStarted`] |
//! | `POST /v1/vms/{vm}/dial` | [`dial::Dial`] | `101`, then frames: bytes both ways as data |
//! | `GET /v1/vms/{vm}/commands` | | [`exec::Command`]s |
//! | `POST /v1/vms/{vm}/commands/{id}/output?follow=` | | `101`, then frames |
//! | `POST /v1/vms/{vm}/put?path=&name=` | | `101`, then frames: tar in as data |
//! | `POST /v1/vms/{vm}/get?path=&pattern=` | | `101`, then frames: tar out as data |
//! | `GET /v1/vms/{vm}/console?follow=` | | the console's log as bytes |
//! | `POST /v1/vms/{vm}/console/attach` | [`exec::Terminal`] | `101`, then frames: a [`console::Attached`] first |
//! | `GET /v1/vms/{vm}/ports` | | [`port::Port`]s |
//! | `GET /v1/vms/{vm}/stats` | | [`stats::VmStats`] |
//! | `GET /v1/stats` | | [`stats::VmStats`] of every VM that runs |
//! | `GET /v1/images` | | [`image::Image`]s |
//! | `POST /v1/images` | [`image::ImageBuild`] | events, result [`image::Image`] |
//! | `GET /v1/images/{image}` | | [`image::Image`] |
//! | `DELETE /v1/images/{image}` | | [`image::Image`] |
//!
//! "Events" are lines of JSON, each an [`operation::Event`], the last one a result or an error. A client that hangs up
//! cancels its operation. Every other failure is an [`error::ApiError`] with a fitting status.
//!
//! **When changing the API**: fields are added, never renamed; what a client may omit has a default. The command line's
//! JSON output is these types, so a change here wants a line in CHANGELOG.md.

pub mod change;
pub mod console;
pub mod daemon;
pub mod dial;
pub mod dns;
pub mod error;
pub mod events;
pub mod exec;
pub mod image;
pub mod name;
pub mod network;
pub mod operation;
pub mod port;
pub mod stats;
pub mod verify;
pub mod vm;

#[cfg(feature = "client")]
pub mod client;

/// The frames of upgraded streams: those of the agent's protocol, passed through by the daemon.
pub use banger_protocol::frame;
/// Names by pattern: the guest finds them, the client checks them.
pub use banger_protocol::pattern;
/// Public SSH keys: what a line has to be.
pub use banger_protocol::ssh;

/// The API that this build speaks. A daemon of another number is refused with a hint.
pub const VERSION: u32 = 1;

/// The agent protocol that this build speaks.
pub const PROTOCOL_VERSION: u32 = banger_protocol::VERSION;
