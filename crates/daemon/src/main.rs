//! `bangerd`: reads its environment and its arguments, sets up its log, and serves. All else is in the library.

use std::fs::File;
use std::io::Write;
use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Arc;

use bangerd::api::error::chain;
use bangerd::arguments::Arguments;
use bangerd::image::install::Mmdebstrap;
use bangerd::log::Log;
use bangerd::operation::fault::Faults;
use bangerd::paths::{Paths, agent_candidates};
use bangerd::serve::{Daemon, Options, places};
use clap::Parser;

fn main() -> ExitCode {
    let mut arguments = match Arguments::try_parse() {
        Ok(arguments) => arguments,
        Err(error) => return misused(&error),
    };
    let ready = match arguments.ready_fd.map(banger_linux::process::inherited).transpose() {
        Ok(ready) => ready.map(File::from),
        Err(error) => return fail(None, &format!("cannot use the descriptor of --ready-fd: {error}"), "leave it out"),
    };
    // First of all: the daemon owns every descriptor that it opens after this.
    let refused = match banger_linux::inherit::settle(arguments.ready_fd) {
        Ok(refused) => refused,
        Err(error) => {
            return fail(ready, &format!("cannot close the descriptors of its starter: {error}"), "mount /proc");
        }
    };
    let (paths, agent) = match at_the_root(paths(), arguments.agent.take()) {
        Ok(places) => places,
        Err(error) => {
            return fail(ready, &format!("cannot leave the working directory: {error}"), "start it in another");
        }
    };
    // Before it opens the log: in another user's directory the log could be a link to any file.
    if let Err(error) = places::make(&paths) {
        return fail(ready, &chain(&error), &error.help());
    }
    let log = match set_up_log(&paths) {
        Ok(log) => log,
        Err(error) => {
            return fail(ready, &format!("cannot start the threads of the log: {error}"), "look at the host's limits");
        }
    };
    // If the log cannot be written, standard error says so from the start.
    tracing::info!(version = env!("CARGO_PKG_VERSION"), pid = std::process::id(), "the daemon starts");
    for refused in refused {
        tracing::warn!(error = chain(&refused), "the daemon goes on as it was started");
    }
    let code = run(paths, agent, arguments, ready, &log);
    log.finish();
    code
}

/// Serves until it is told to go.
fn run(paths: Paths, agent: Option<PathBuf>, arguments: Arguments, ready: Option<File>, log: &Log) -> ExitCode {
    let Some(agent) = agent.or_else(find_agent) else {
        return fail(ready, "cannot find the file banger-agent", "put it beside bangerd, or name it with --agent");
    };
    let options = Options {
        paths,
        agent,
        fake_vmm: arguments.fake_vmm,
        installer: Arc::new(Mmdebstrap),
        faults: Faults::gated(arguments.gate),
    };
    let runtime = match tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => {
            return fail(ready, &format!("cannot start the event loop: {error}"), "look at the limits of the host");
        }
    };
    runtime.spawn(log.tell_counts());
    let ended = runtime.block_on(async {
        let daemon = match Daemon::start(options).await {
            Ok(daemon) => daemon,
            Err(error) => return Err((error, ready)),
        };
        daemon.serve(ready).await.map_err(|error| (error, None))
    });
    // Streams of commands and work on blocking threads may still be there; they end with the process.
    runtime.shutdown_background();
    match ended {
        Ok(()) => ExitCode::SUCCESS,
        Err((error, ready)) => {
            let help = match error.winner() {
                // One more line, for a command line that waits for a daemon: it then waits for that one.
                Some(pid) if ready.is_some() => format!("{}\ntaken: {pid}", error.help()),
                _ => error.help(),
            };
            fail(ready, &chain(&error), &help)
        }
    }
}

fn paths() -> Paths {
    let usual = Paths::default();
    #[expect(clippy::disallowed_methods, reason = "this is main.rs")]
    let set = |name: &str| std::env::var_os(name).filter(|place| !place.is_empty());
    let place = |name: &str, usual: PathBuf| set(name).map_or(usual, PathBuf::from);
    Paths {
        state: place("BANGER_STATE_DIR", usual.state),
        runtime: place("BANGER_RUNTIME_DIR", usual.runtime),
        config: place("BANGER_CONFIG", usual.config),
        claims: usual.claims,
    }
}

/// Leaves the directory that the daemon was started in, which nobody could unmount while it runs. Relative paths still
/// lead where they led.
fn at_the_root(paths: Paths, agent: Option<PathBuf>) -> std::io::Result<(Paths, Option<PathBuf>)> {
    let absolute = |path: PathBuf| std::path::absolute(path);
    let Paths { state, runtime, config, claims } = paths;
    let paths = Paths {
        state: absolute(state)?,
        runtime: absolute(runtime)?,
        config: absolute(config)?,
        claims: absolute(claims)?,
    };
    let agent = agent.map(absolute).transpose()?;
    std::env::set_current_dir("/")?;
    Ok((paths, agent))
}

fn find_agent() -> Option<PathBuf> {
    let daemon = std::env::current_exe().ok()?;
    agent_candidates(&daemon).into_iter().find(|candidate| candidate.is_file())
}

fn set_up_log(paths: &Paths) -> std::io::Result<Log> {
    #[expect(clippy::disallowed_methods, reason = "this is main.rs")]
    let filter = std::env::var("BANGER_LOG");
    Log::set_up(&paths.log(), filter.as_deref().unwrap_or("info"))
}

/// clap's help as it is, and its complaints in the shape that all of banger's errors have.
fn misused(error: &clap::Error) -> ExitCode {
    if !error.use_stderr() {
        // A reader that has seen enough of the help is no failure.
        drop(error.print());
        return ExitCode::SUCCESS;
    }
    let text = error.render().to_string();
    let cause: Vec<&str> = text.lines().map(str::trim).take_while(|line| !line.is_empty()).collect();
    drop(writeln!(std::io::stderr(), "{}\nhelp: see `bangerd --help`", cause.join(" ")));
    ExitCode::from(2)
}

/// Says why it cannot run, to whoever waits for it and on standard error.
fn fail(ready: Option<File>, error: &str, help: &str) -> ExitCode {
    let text = format!("error: {error}\nhelp: {help}\n");
    tracing::error!(error, "the daemon ends");
    if let Some(mut ready) = ready {
        // Who waited may have gone.
        drop(ready.write_all(text.as_bytes()));
    }
    drop(std::io::stderr().write_all(text.as_bytes()));
    ExitCode::FAILURE
}
