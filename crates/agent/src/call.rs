//! One call: what its first frame asks for, and who does it.

use std::rc::Rc;

use banger_protocol::call::{Answer, Call, CallError, CallErrorCode};
use banger_protocol::frame::{FrameError, Kind};
use banger_protocol::session::Stream;

use crate::connection::Traffic;
use crate::guest::Guest;
use crate::power::Then;
use crate::stream::{self, Incoming, Outgoing};
use crate::{changes, clock, console, detached, dial, exec, facts, files, levels, load, ports, power};

/// Serves one stream.
pub async fn serve(guest: Rc<Guest>, stream: Stream, traffic: Rc<Traffic>) {
    let (mut incoming, outgoing) = stream::split(stream, traffic.clone());
    let outgoing = Rc::new(outgoing);
    // A stream that fails here is one whose caller has gone: there is nobody to tell.
    let then = answer(&guest, &mut incoming, &outgoing).await.unwrap_or(Then::GoOn);
    let flushed = traffic.flushed.notified();
    outgoing.finish().await;
    if then == Then::End {
        // The caller is to have its answer first.
        flushed.await;
        guest.end.cancel();
    }
}

async fn answer(guest: &Rc<Guest>, incoming: &mut Incoming, outgoing: &Rc<Outgoing>) -> Result<Then, FrameError> {
    let frame = incoming.next().await?;
    let call = match frame.parse::<Call>() {
        Ok(call) if call.since() > guest.protocol => return unknown(outgoing).await,
        Ok(call) if frame.kind == Kind::Message => call,
        Ok(_) | Err(_) => return unknown(outgoing).await,
    };
    match call {
        Call::Exec(exec) => {
            guest.settled().await;
            match &exec.detached {
                Some(id) => detached::start(guest, &exec, id, outgoing).await?,
                None => exec::run(guest, &exec, incoming, outgoing).await?,
            }
        }
        Call::Commands => outgoing.answer(&Answer::Commands { commands: guest.detached.list() }).await?,
        Call::Output { id, follow } => {
            detached::send_output(&guest.detached, &id, follow, incoming, outgoing).await?;
        }
        Call::Await { id } => detached::wait(&guest.detached, &id, incoming, outgoing).await?,
        Call::Put { path, name } => {
            guest.settled().await;
            files::put(guest, &path, &name, incoming, outgoing).await?;
        }
        Call::Get { path, pattern } => {
            guest.settled().await;
            let pattern = pattern && guest.protocol >= 3;
            files::get(guest, &path, pattern, incoming, outgoing).await?;
        }
        Call::Levels => levels::tell(guest, incoming, outgoing).await?,
        Call::SetClock { unix_nanos, entropy } => {
            done(outgoing, set_clock(guest, unix_nanos, &entropy)).await?;
        }
        Call::SetName { name } => {
            guest.settled().await;
            done(outgoing, changes::set_name(guest, &name)).await?;
        }
        Call::Grow { bytes } => {
            guest.settled().await;
            let guest = Rc::clone(guest);
            done(outgoing, changes::grow(&guest, bytes).await).await?;
        }
        Call::Ports => {
            outgoing.answer(&ports::listening().map_or_else(Answer::Error, |ports| Answer::Ports { ports })).await?
        }
        Call::Load => outgoing.answer(&load::gather().map_or_else(Answer::Error, Answer::Load)).await?,
        Call::Console(terminal) => {
            guest.settled().await;
            done(outgoing, console::open(guest, &terminal)).await?;
        }
        Call::Authorize { keys, user } => {
            guest.settled().await;
            done(outgoing, changes::authorize(guest, &keys, user.as_deref())).await?;
        }
        Call::Dial { port } => {
            // Its loopback is up by then.
            guest.settled().await;
            dial::dial(port, incoming, outgoing).await?;
        }
        Call::Facts => outgoing.answer(&Answer::Facts(facts::gather(guest))).await?,
        Call::PowerOff => return power_off(guest, outgoing).await,
    }
    Ok(Then::GoOn)
}

async fn done(outgoing: &Outgoing, result: Result<(), CallError>) -> Result<(), FrameError> {
    outgoing.answer(&result.map_or_else(Answer::Error, |()| Answer::Done)).await
}

fn set_clock(guest: &Guest, unix_nanos: u64, entropy: &str) -> Result<(), CallError> {
    let error = |code, message| CallError { code, message };
    let invalid = || error(CallErrorCode::Invalid, "the random bytes are no hexadecimal".to_owned());
    let bytes = clock::parse_hex(entropy).filter(|bytes| bytes.len() <= 64).ok_or_else(invalid)?;
    if guest.is_fake() {
        // The clock and the randomness are those of a host, and none of our business.
        return Ok(());
    }
    let failed = |what: &str, source| error(CallErrorCode::Failed, format!("cannot {what}: {source}"));
    if guest.protocol >= 2 && !bytes.is_empty() {
        banger_linux::entropy::credit(&bytes).map_err(|source| failed("stir in random bytes", source))?;
    }
    clock::set(unix_nanos).map_err(|source| failed("set the clock", source))
}

async fn power_off(guest: &Guest, outgoing: &Outgoing) -> Result<Then, FrameError> {
    match power::off(guest).await {
        Ok(then) => {
            outgoing.answer(&Answer::Done).await?;
            Ok(then)
        }
        Err(source) => {
            let message = format!("cannot tell the init to power off: {source}");
            outgoing.answer(&Answer::Error(CallError { code: CallErrorCode::Failed, message })).await?;
            Ok(Then::GoOn)
        }
    }
}

async fn unknown(outgoing: &Outgoing) -> Result<Then, FrameError> {
    let message = "this agent does not know the call".to_owned();
    outgoing.answer(&Answer::Error(CallError { code: CallErrorCode::Unknown, message })).await?;
    Ok(Then::GoOn)
}
