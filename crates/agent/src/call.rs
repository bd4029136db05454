//! One call: what its first frame asks for, and who does it.

use std::rc::Rc;

use banger_protocol::call::{Answer, Call, CallError, CallErrorCode};
use banger_protocol::frame::{FrameError, Kind};
use banger_protocol::session::Stream;

use crate::connection::Arrivals;
use crate::exec;
use crate::guest::Guest;
use crate::stream::{self, Incoming, Outgoing};

/// Serves one stream.
pub async fn serve(guest: Rc<Guest>, stream: Stream, arrivals: Arrivals) {
    let (mut incoming, outgoing) = stream::split(stream, arrivals);
    let outgoing = Rc::new(outgoing);
    // A stream that fails here is one whose caller has gone: there is nobody to tell.
    drop(answer(&guest, &mut incoming, &outgoing).await);
    outgoing.finish().await;
}

async fn answer(guest: &Rc<Guest>, incoming: &mut Incoming, outgoing: &Rc<Outgoing>) -> Result<(), FrameError> {
    let frame = incoming.next().await?;
    let call = match frame.parse::<Call>() {
        Ok(call) if frame.kind == Kind::Message => call,
        Ok(_) | Err(_) => return outgoing.answer(&Answer::Error(unknown())).await,
    };
    match call {
        Call::Exec(exec) => exec::run(guest, &exec, incoming, outgoing).await,
        _ => outgoing.answer(&Answer::Error(unknown())).await,
    }
}

fn unknown() -> CallError {
    CallError { code: CallErrorCode::Unknown, message: "this agent does not know the call".to_owned() }
}
