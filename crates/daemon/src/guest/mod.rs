//! Guests that run: the channel to one, and calls over it.
//!
//! What comes from a guest is hostile: greetings, frames and answers are bounded by the protocol crate, and every answer
//! that is waited for has a deadline.

use std::time::Duration;

use banger_protocol::call::{Answer, Call, CallError, Level};
use banger_protocol::frame::{self, Frame, FrameError, Kind, MAX_PAYLOAD};
use banger_protocol::hello::{self, HelloError, Welcome};
use banger_protocol::session::{self, Opener, SessionError, Stream};
use banger_protocol::words::Flaw;
use tokio::sync::watch;

use crate::vmm::{Instance, VmmError};

/// How long an agent may take to accept a call, under emulation and load.
const ANSWER: Duration = Duration::from_secs(30);

/// How long a greeting may take on a port that was renewed, before it is renewed once more. An agent that is there needs
/// some 20 ms.
const GREETING: Duration = Duration::from_secs(10);

/// The same, after many renewals in vain: nobody may be there any more.
const LONG_GREETING: Duration = Duration::from_secs(600);

/// A handle on a guest's agent. Cheap to clone; the session ends when the last clone is dropped.
#[derive(Debug, Clone)]
pub struct Guest {
    opener: Opener,
    /// What the agent said of itself.
    pub welcome: Welcome,
}

/// Why a guest did not do as asked.
#[derive(Debug, thiserror::Error)]
pub enum GuestError {
    /// The VMM gave no channel.
    #[error("cannot reach the guest's agent")]
    Channel(#[source] VmmError),
    /// No greeting came.
    #[error("the guest's agent did not greet")]
    Hello(#[source] HelloError),
    /// The session is over, or full.
    #[error("cannot call the guest's agent")]
    Session(#[source] SessionError),
    /// The call is longer than a frame.
    #[error("what the guest is asked takes {0} bytes, over the limit of {MAX_PAYLOAD}")]
    TooLong(usize),
    /// The agent's answer could not be read.
    #[error("the guest's agent gave no valid answer")]
    Frame(#[source] FrameError),
    /// The agent did not answer in time.
    #[error("the guest's agent did not answer within {0} s")]
    Silent(u64),
    /// The agent answered something that does not fit the call.
    #[error("the guest's agent gave an answer that does not fit")]
    Unfitting,
    /// The agent answered something that no agent says.
    #[error("the guest's agent gave an answer with a wrong {0}")]
    Wrong(Flaw),
    /// The agent refused, and says why.
    #[error(transparent)]
    Refused(CallError),
    /// The agent is of an older protocol that cannot do this.
    #[error("the guest's agent speaks protocol {0}, which cannot do this")]
    TooOld(u32),
}

impl GuestError {
    /// Whether another try can only fail the same way.
    fn is_final(&self) -> bool {
        matches!(
            self,
            GuestError::Channel(VmmError::Gone) | GuestError::Hello(HelloError::TooOld(_) | HelloError::Wrong(_))
        )
    }
}

/// Opens a fresh channel and greets. Waits as long as it takes; the caller sets a deadline. The second value changes to
/// `true` when the session is over.
///
/// # Errors
/// [`GuestError::Channel`], [`GuestError::Hello`].
pub async fn connect(instance: &dyn Instance, vm: &str) -> Result<(Guest, watch::Receiver<bool>), GuestError> {
    let mut channel = instance.connect().await.map_err(GuestError::Channel)?;
    let nonce = nonce().map_err(|error| GuestError::Hello(HelloError::Io(error)))?;
    let welcome = hello::greet(&mut channel, &nonce).await.map_err(GuestError::Hello)?;
    let (opener, drive) = session::open(channel);
    let (over, is_over) = watch::channel(false);
    let (abandoned, vm) = (instance.abandoned(), vm.to_owned());
    tokio::spawn(async move {
        tokio::select! {
            () = drive => {}
            // The driver is dropped, and every stream ends with it: who waits for a command's output hears of it.
            () = abandoned => tracing::info!(vm, "the guest's agent has closed its end of the channel"),
        }
        over.send_replace(true);
    });
    Ok((Guest { opener, welcome }, is_over))
}

/// As [`connect`], to a guest that may be anywhere: as long as its VMM lives, another fresh port is tried. A guest whose
/// driver comes up while its port is replaced can miss the new one, and a VMM on a busy host can be silent for a minute.
///
/// # Errors
/// [`GuestError::Channel`] where the VMM is gone; [`GuestError::Hello`] where the agent is too old or says what none does.
pub async fn connect_again(instance: &dyn Instance, vm: &str) -> Result<(Guest, watch::Receiver<bool>), GuestError> {
    let mut patience = GREETING;
    loop {
        let next = tokio::time::Instant::now() + patience;
        match tokio::time::timeout_at(next, connect(instance, vm)).await {
            Ok(Ok(connected)) => return Ok(connected),
            Ok(Err(error)) if error.is_final() => return Err(error),
            Ok(Err(error)) => {
                tracing::info!(vm, error = crate::api::error::chain(&error), "no session with the guest's agent yet");
                tokio::time::sleep_until(next).await;
            }
            Err(_) => tracing::info!(vm, "no greeting from the guest's agent; its port is renewed"),
        }
        patience = (patience * 2).min(LONG_GREETING);
    }
}

fn nonce() -> std::io::Result<String> {
    Ok(crate::vm::identity::hex(&crate::context::random::<16>()?))
}

impl Guest {
    /// Makes a call: its answer, and the stream on which its frames follow.
    ///
    /// # Errors
    /// [`GuestError`].
    pub async fn call(&self, call: &Call) -> Result<(Answer, Stream), GuestError> {
        let (frame, stream) = self.call_raw(call).await?;
        match frame.parse().map_err(GuestError::Frame)? {
            Answer::Error(refusal) => Err(GuestError::Refused(refusal)),
            answer => match answer.flaw() {
                Some(flaw) => Err(GuestError::Wrong(flaw)),
                None => Ok((answer, stream)),
            },
        }
    }

    /// As [`Guest::call`], with the answer as it came: a frame to pass on, refusals included.
    ///
    /// # Errors
    /// [`GuestError`], but for [`GuestError::Refused`].
    pub async fn call_raw(&self, call: &Call) -> Result<(Frame, Stream), GuestError> {
        if call.since() > self.welcome.protocol {
            return Err(GuestError::TooOld(self.welcome.protocol));
        }
        let request = Frame::json(Kind::Message, call).map_err(GuestError::Frame)?;
        if request.payload.len() > MAX_PAYLOAD {
            return Err(GuestError::TooLong(request.payload.len()));
        }
        let exchange = async {
            let opened = match call {
                Call::PowerOff
                | Call::SetClock { .. }
                | Call::Await { .. }
                | Call::SetName { .. }
                | Call::Grow { .. }
                | Call::Authorize { .. } => self.opener.open_own().await,
                _ => self.opener.open().await,
            };
            let mut stream = opened.map_err(GuestError::Session)?;
            frame::write(&mut stream, &request).await.map_err(GuestError::Frame)?;
            let answer = frame::read(&mut stream).await.map_err(GuestError::Frame)?;
            match answer.kind {
                Kind::Message => Ok((answer, stream)),
                _ => Err(GuestError::Unfitting),
            }
        };
        within(ANSWER, exchange).await
    }

    /// Asks the guest to power off.
    ///
    /// # Errors
    /// [`GuestError`].
    pub async fn power_off(&self) -> Result<(), GuestError> {
        self.call(&Call::PowerOff).await.map(drop)
    }

    /// Sets the guest's clock by the host's.
    ///
    /// # Errors
    /// [`GuestError`].
    pub async fn set_clock(&self) -> Result<(), GuestError> {
        let entropy = crate::context::random::<64>().map_err(|error| GuestError::Hello(HelloError::Io(error)))?;
        let entropy = crate::vm::identity::hex(&entropy);
        self.call(&Call::SetClock { unix_nanos: crate::context::unix_nanos(), entropy }).await.map(drop)
    }

    /// Waits until a readiness level is reached.
    ///
    /// # Errors
    /// [`GuestError`]; the caller sets the deadline.
    pub async fn reached(&self, level: Level) -> Result<(), GuestError> {
        let (mut answer, mut stream) = self.call(&Call::Levels).await?;
        loop {
            match answer {
                Answer::Levels { reached } if reached.contains(&level) => return Ok(()),
                Answer::Levels { .. } => {}
                _ => return Err(GuestError::Unfitting),
            }
            let next = frame::read(&mut stream).await.map_err(GuestError::Frame)?;
            answer = next.parse().map_err(GuestError::Frame)?;
        }
    }

    /// Waits until a detached command has ended.
    ///
    /// # Errors
    /// [`GuestError`]; [`GuestError::Refused`] where there is no such command.
    pub async fn ended(&self, command: &str) -> Result<(), GuestError> {
        let (_, mut stream) = self.call(&Call::Await { id: command.to_owned() }).await?;
        frame::read(&mut stream).await.map(drop).map_err(GuestError::Frame)
    }
}

async fn within<T>(limit: Duration, work: impl Future<Output = Result<T, GuestError>>) -> Result<T, GuestError> {
    match tokio::time::timeout(limit, work).await {
        Ok(done) => done,
        Err(_) => Err(GuestError::Silent(limit.as_secs())),
    }
}
