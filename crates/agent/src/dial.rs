//! Connections to what listens in the guest.
//!
//! They are made on the guest's own loopback: they need no network, and reach what is meant for the guest alone.

use std::io;
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};

use banger_protocol::call::{Answer, CallError, CallErrorCode};
use banger_protocol::frame::{BEST_PAYLOAD, Frame, FrameError, HEAD, Kind, put_head};
use bytes::{BufMut, BytesMut};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio_util::sync::CancellationToken;

use crate::stream::{Incoming, Outgoing};

/// How much is read at once to begin with: what people type, and what is said to them.
const LITTLE: usize = 4096;

/// Connects to a TCP port and carries bytes both ways until both directions have ended, or the caller has gone.
///
/// # Errors
/// Where the caller has gone.
pub async fn dial(port: u16, incoming: &mut Incoming, outgoing: &Outgoing) -> Result<(), FrameError> {
    let connected = tokio::select! {
        connected = connect(port) => connected,
        () = incoming.dropped() => return Err(FrameError::Ended),
    };
    let connection = match connected {
        Ok(connection) => connection,
        Err(error) => return outgoing.answer(&Answer::Error(error)).await,
    };
    outgoing.answer(&Answer::Done).await?;
    let (reader, writer) = connection.into_split();
    let said_all = CancellationToken::new();
    // Whichever fails takes the other with it, and the connection with both.
    tokio::try_join!(say(port, reader, outgoing, &said_all), hear(writer, incoming, &said_all)).map(drop)
}

/// By the older protocol first: most things listen there, and what listens to both says so at either.
async fn connect(port: u16) -> Result<TcpStream, CallError> {
    let error = |code, message| CallError { code, message };
    if port == 0 {
        return Err(error(CallErrorCode::Invalid, "there is no port 0".to_owned()));
    }
    let places: [SocketAddr; 2] = [(Ipv4Addr::LOCALHOST, port).into(), (Ipv6Addr::LOCALHOST, port).into()];
    let mut why = None;
    for place in places {
        match TcpStream::connect(place).await {
            Ok(connection) => {
                // What is typed is not to wait for more of it. A connection that refuses this still carries all.
                connection.set_nodelay(true).ok();
                return Ok(connection);
            }
            Err(source) => drop(why.get_or_insert(source)),
        }
    }
    let why = why.map_or_else(String::new, |source| match source.kind() {
        io::ErrorKind::ConnectionRefused => "nothing listens there".to_owned(),
        _ => source.to_string(),
    });
    Err(error(CallErrorCode::Failed, format!("cannot connect to port {port} of the guest: {why}")))
}

/// Sends what the other side says, and that it has said all.
async fn say(
    port: u16,
    mut reader: OwnedReadHalf,
    outgoing: &Outgoing,
    said_all: &CancellationToken,
) -> Result<(), FrameError> {
    let mut frame = BytesMut::with_capacity(LITTLE);
    loop {
        frame.clear();
        frame.put_bytes(0, HEAD);
        match reader.read_buf(&mut frame).await {
            Ok(0) => {
                outgoing.send(&Frame::new(Kind::Data, "")).await?;
                said_all.cancel();
                return Ok(());
            }
            Ok(_) => {}
            Err(error) => {
                let message = format!("the connection to port {port} of the guest broke: {error}");
                outgoing.failed(&CallError { code: CallErrorCode::Failed, message }).await?;
                return Err(FrameError::Io(error));
            }
        }
        put_head(&mut frame, Kind::Data)?;
        outgoing.send_encoded(&frame).await?;
        if frame.len() == frame.capacity() && frame.capacity() < BEST_PAYLOAD + HEAD {
            frame = BytesMut::with_capacity(BEST_PAYLOAD + HEAD);
        }
    }
}

/// Passes on what the caller says, until it has said all and the other side has too.
async fn hear(writer: OwnedWriteHalf, incoming: &mut Incoming, said_all: &CancellationToken) -> Result<(), FrameError> {
    let mut writer = Some(writer);
    loop {
        let frame = incoming.next().await?;
        if frame.kind != Kind::Data {
            return Err(FrameError::UnknownKind(frame.kind as u8));
        }
        if frame.payload.is_empty() {
            // To drop the half that is written tells the other side that nothing follows.
            drop(writer);
            return tokio::select! {
                () = said_all.cancelled() => Ok(()),
                () = incoming.gone() => Err(FrameError::Ended),
            };
        }
        let Some(open) = &mut writer else { continue };
        let written = tokio::select! {
            written = open.write_all(&frame.payload) => written,
            () = incoming.dropped() => return Err(FrameError::Ended),
        };
        if written.is_err() {
            // It hears no more, and may still say something: what else is sent to it is thrown away.
            writer = None;
        }
    }
}
