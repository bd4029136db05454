//! The server: one thread of its own, so that neither a flood of questions nor a slow upstream is in anybody's way.

use std::io;
use std::net::{Ipv4Addr, SocketAddr, SocketAddrV4};
use std::sync::{Arc, PoisonError, RwLock};
use std::thread::JoinHandle;
use std::time::Duration;

use banger_linux::accept::Acceptor;
use domain::base::Message;
use domain::base::iana::Rcode;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream, UdpSocket};
use tokio::sync::Semaphore;
use tokio_util::sync::CancellationToken;

use super::answer::{self, Reply};
use super::upstream::Upstream;
use super::zone::Zone;

/// How many conversations by TCP there may be. Who asks a lot asks by UDP.
const CONVERSATIONS: usize = 64;

/// How many questions may wait for somebody else's answer.
const WAITING: usize = 256;

/// How long a conversation may be silent (RFC 7766, 6.2.3: some seconds).
const SILENT: Duration = Duration::from_secs(10);

/// How many packets are answered before others have their turn.
const IN_A_ROW: usize = 64;

/// The zone of now, for all who answer by it.
#[derive(Debug, Clone)]
pub struct Zones(Arc<RwLock<Arc<Zone>>>);

impl Zones {
    /// With this one to begin with.
    pub fn new(zone: Zone) -> Zones {
        Zones(Arc::new(RwLock::new(Arc::new(zone))))
    }

    /// The zone of now.
    pub fn now(&self) -> Arc<Zone> {
        Arc::clone(&self.0.read().unwrap_or_else(PoisonError::into_inner))
    }

    /// Answers are given by another from now on.
    pub fn set(&self, zone: Zone) {
        *self.0.write().unwrap_or_else(PoisonError::into_inner) = Arc::new(zone);
    }
}

/// Who is served at an address.
#[derive(Debug, Clone)]
pub enum Service {
    /// The host, which asks others what is not ours: it is refused here.
    Host,
    /// Guests, who have nobody else to ask.
    Guests(Upstream),
}

/// A server. It ends when this is dropped.
#[derive(Debug)]
pub struct Server {
    stop: CancellationToken,
    thread: Option<JoinHandle<()>>,
    address: SocketAddr,
}

impl Server {
    /// Listens, by UDP and TCP at the same port, and answers from now on. Port 0 is any that is free for both.
    ///
    /// # Errors
    /// Those of bind(2) and of making a thread.
    pub fn start(at: SocketAddrV4, zones: Zones, service: Service) -> io::Result<Server> {
        let udp = std::net::UdpSocket::bind(at)?;
        let address = udp.local_addr()?;
        let tcp = std::net::TcpListener::bind(address)?;
        udp.set_nonblocking(true)?;
        tcp.set_nonblocking(true)?;
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        let stop = CancellationToken::new();
        let stopped = stop.clone();
        let work = move || {
            runtime.block_on(async {
                let sockets = UdpSocket::from_std(udp).and_then(|udp| Ok((udp, TcpListener::from_std(tcp)?)));
                let Ok((udp, tcp)) = sockets else { return };
                let answerer = Answerer { zones, service, waiting: Arc::new(Semaphore::new(WAITING)) };
                tokio::select! {
                    () = by_udp(Arc::new(udp), answerer.clone()) => {}
                    () = by_tcp(tcp, answerer) => {}
                    () = stopped.cancelled() => {}
                }
            });
        };
        let thread = std::thread::Builder::new().name("dns".into()).spawn(work)?;
        Ok(Server { stop, thread: Some(thread), address })
    }

    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        self.address
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.stop.cancel();
        if let Some(thread) = self.thread.take() {
            // A panic there has been told already.
            drop(thread.join());
        }
    }
}

#[derive(Debug, Clone)]
struct Answerer {
    zones: Zones,
    service: Service,
    waiting: Arc<Semaphore>,
}

/// How a packet came, and its answer goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Way {
    Udp,
    Tcp,
}

impl Answerer {
    /// What can be said at once.
    fn at_once(&self, packet: &[u8]) -> Reply {
        match (answer::reply(&self.zones.now(), packet), &self.service) {
            (Reply::Foreign, Service::Host) => refused(packet, Rcode::REFUSED),
            (reply, _) => reply,
        }
    }

    /// The answer to what is not ours.
    async fn of_others(&self, packet: &[u8], way: Way) -> Option<Vec<u8>> {
        let Service::Guests(upstream) = &self.service else { return None };
        let failed = || match refused(packet, Rcode::SERVFAIL) {
            Reply::Answer(answer) => Some(answer),
            Reply::Foreign | Reply::Silence => None,
        };
        let Ok(_turn) = self.waiting.try_acquire() else { return failed() };
        upstream.ask(packet, way).await.or_else(failed)
    }
}

fn refused(packet: &[u8], code: Rcode) -> Reply {
    Message::from_octets(packet).map_or(Reply::Silence, |message| answer::refuse(&message, code))
}

async fn by_udp(socket: Arc<UdpSocket>, answerer: Answerer) {
    let mut packet = [0; 4096];
    loop {
        // An error belongs to a packet that was sent before (udp(7)).
        if socket.readable().await.is_err() {
            continue;
        }
        for _ in 0..IN_A_ROW {
            let (length, from) = match socket.try_recv_from(&mut packet) {
                Ok(received) => received,
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => break,
                Err(_) => continue,
            };
            match answerer.at_once(&packet[..length]) {
                // Who cannot be reached does not get it; a full buffer loses it, as networks do.
                Reply::Answer(answer) => drop(socket.try_send_to(&answer, from)),
                Reply::Silence => {}
                Reply::Foreign => {
                    let (socket, answerer, packet) = (Arc::clone(&socket), answerer.clone(), packet[..length].to_vec());
                    drop(tokio::spawn(async move {
                        if let Some(answer) = answerer.of_others(&packet, Way::Udp).await {
                            drop(socket.send_to(&answer, from).await);
                        }
                    }));
                }
            }
        }
        tokio::task::yield_now().await;
    }
}

async fn by_tcp(listener: TcpListener, answerer: Answerer) {
    let free = Arc::new(Semaphore::new(CONVERSATIONS));
    let mut clients = Acceptor::new(listener);
    let short = |error: &io::Error| tracing::warn!(%error, "no question by TCP can be accepted for now");
    loop {
        // Who comes when there is no room waits in the kernel's queue.
        let Ok(turn) = Arc::clone(&free).acquire_owned().await else { return };
        let stream = clients.next(short).await;
        let answerer = answerer.clone();
        drop(tokio::spawn(async move {
            // Whatever ends a conversation, its other side sees it.
            drop(converse(stream, answerer).await);
            drop(turn);
        }));
    }
}

/// One question after the other, each behind its length (RFC 1035, 4.2.2).
async fn converse(mut stream: TcpStream, answerer: Answerer) -> io::Result<()> {
    let mut packet = Vec::new();
    loop {
        let read = async {
            let length = stream.read_u16().await?;
            packet.resize(length.into(), 0);
            stream.read_exact(&mut packet).await
        };
        tokio::time::timeout(SILENT, read).await??;
        let answer = match answerer.at_once(&packet) {
            Reply::Answer(answer) => Some(answer),
            Reply::Silence => None,
            Reply::Foreign => answerer.of_others(&packet, Way::Tcp).await,
        };
        let Some(answer) = answer else { return Ok(()) };
        let length = u16::try_from(answer.len()).map_err(io::Error::other)?;
        let written = [&length.to_be_bytes()[..], &answer].concat();
        tokio::time::timeout(SILENT, stream.write_all(&written)).await??;
    }
}

/// An address of this host's that only this host reaches.
pub fn loopback(port: u16) -> SocketAddrV4 {
    SocketAddrV4::new(Ipv4Addr::LOCALHOST, port)
}

#[cfg(test)]
mod tests {
    use super::*;
    use domain::base::{MessageBuilder, Name, Rtype};
    use std::io::{Read, Write};

    fn zone() -> Zone {
        Zone::new("vm", "10.77.0.0/24".parse().unwrap()).with("devbox", [10, 77, 0, 2].into())
    }

    fn question(name: &str) -> Vec<u8> {
        let mut builder = MessageBuilder::new_vec().question();
        builder.push((Name::vec_from_str(name).unwrap(), Rtype::A)).unwrap();
        builder.finish()
    }

    /// The code of an answer, and how many records it has.
    fn told(answer: &[u8]) -> (Rcode, u16) {
        let message = Message::from_octets(answer).unwrap();
        (message.header().rcode(), message.header_counts().ancount())
    }

    fn by_udp(server: SocketAddr, name: &str) -> (Rcode, u16) {
        let socket = std::net::UdpSocket::bind(loopback(0)).unwrap();
        socket.set_read_timeout(Some(Duration::from_secs(10))).unwrap();
        socket.send_to(&question(name), server).unwrap();
        let mut answer = [0; 512];
        let length = socket.recv(&mut answer).unwrap();
        told(&answer[..length])
    }

    fn by_tcp(stream: &mut std::net::TcpStream, name: &str) -> (Rcode, u16) {
        let question = question(name);
        stream.write_all(&u16::try_from(question.len()).unwrap().to_be_bytes()).unwrap();
        stream.write_all(&question).unwrap();
        let mut length = [0; 2];
        stream.read_exact(&mut length).unwrap();
        let mut answer = vec![0; u16::from_be_bytes(length).into()];
        stream.read_exact(&mut answer).unwrap();
        told(&answer)
    }

    #[test]
    fn the_host_is_told_by_both_ways_and_refused_what_is_not_ours() {
        let zones = Zones::new(zone());
        let server = Server::start(loopback(0), zones.clone(), Service::Host).unwrap();
        assert_eq!(by_udp(server.address(), "devbox.vm"), (Rcode::NOERROR, 1));
        assert_eq!(by_udp(server.address(), "web.vm"), (Rcode::NXDOMAIN, 0));
        assert_eq!(by_udp(server.address(), "example.org"), (Rcode::REFUSED, 0));
        let mut stream = std::net::TcpStream::connect(server.address()).unwrap();
        for _ in 0..2 {
            assert_eq!(by_tcp(&mut stream, "devbox.vm"), (Rcode::NOERROR, 1));
            assert_eq!(by_tcp(&mut stream, "example.org"), (Rcode::REFUSED, 0));
        }
        zones.set(zone().with("web", [10, 77, 0, 3].into()));
        assert_eq!(by_udp(server.address(), "web.vm"), (Rcode::NOERROR, 1));
        assert!(Server::start(loopback(server.address().port()), zones, Service::Host).is_err());
        let address = server.address();
        drop(server);
        assert!(std::net::UdpSocket::bind(address).is_ok() && std::net::TcpStream::connect(address).is_err());
    }

    #[test]
    fn guests_are_told_what_the_host_would_be() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("resolv.conf");
        let elsewhere =
            Zones::new(Zone::new("org", "10.78.0.0/24".parse().unwrap()).with("example", [10, 78, 0, 2].into()));
        let other = Server::start(loopback(0), elsewhere, Service::Host).unwrap();
        let upstream = Upstream::new(file.clone()).at_port(other.address().port());
        let server = Server::start(loopback(0), Zones::new(zone()), Service::Guests(upstream)).unwrap();
        // Nobody can be asked yet.
        assert_eq!(by_udp(server.address(), "example.org"), (Rcode::SERVFAIL, 0));
        std::fs::write(&file, "nameserver 127.0.0.1\n").unwrap();
        assert_eq!(by_udp(server.address(), "example.org"), (Rcode::NOERROR, 1));
        assert_eq!(by_udp(server.address(), "none.org"), (Rcode::NXDOMAIN, 0));
        assert_eq!(by_udp(server.address(), "devbox.vm"), (Rcode::NOERROR, 1));
        let mut stream = std::net::TcpStream::connect(server.address()).unwrap();
        assert_eq!(by_tcp(&mut stream, "example.org"), (Rcode::NOERROR, 1));
        // Another server after one that does not answer.
        std::fs::write(&file, "nameserver 127.0.0.2\nnameserver 127.0.0.1\n").unwrap();
        assert_eq!(by_udp(server.address(), "example.org"), (Rcode::NOERROR, 1));
    }
}
