//! Whom the host itself asks for names: its `resolv.conf`(5). A resolver of the host's own that stands there, such as
//! systemd-resolved, knows what each of its links knows.

use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpStream, UdpSocket};

use super::server::Way;

/// Where the host says whom it asks for names.
pub(super) const RESOLV_CONF: &str = "/etc/resolv.conf";

/// The port of name servers.
pub(super) const PORT: u16 = 53;

/// How many servers are asked at most, as by the C library (`MAXNS`).
const MOST: usize = 3;

/// How long one may take. Who asks gives up after five seconds or asks again.
const PATIENCE: Duration = Duration::from_secs(2);

/// The name servers of a `resolv.conf`, which is read anew for each question: networks change.
#[derive(Debug, Clone)]
pub struct Upstream {
    file: PathBuf,
    port: u16,
}

impl Upstream {
    /// Those that this file names.
    pub fn new(file: PathBuf) -> Upstream {
        Upstream { file, port: PORT }
    }

    /// The same, at another port than that of name servers.
    #[must_use]
    pub fn at_port(self, port: u16) -> Upstream {
        Upstream { port, ..self }
    }

    /// The first answer; nothing where nobody gives one in time.
    pub(super) async fn ask(&self, packet: &[u8], way: Way) -> Option<Vec<u8>> {
        let text = tokio::fs::read_to_string(&self.file).await.unwrap_or_default();
        for server in servers(&text) {
            let server = SocketAddr::new(server, self.port);
            let asking = async {
                match way {
                    Way::Udp => by_udp(packet, server).await,
                    Way::Tcp => by_tcp(packet, server).await,
                }
            };
            if let Ok(Ok(answer)) = tokio::time::timeout(PATIENCE, asking).await {
                return Some(answer);
            }
        }
        None
    }
}

/// Each question goes out from a port of its own, and with the number that its asker gave it: whoever would forge an answer has
/// to guess both.
async fn by_udp(packet: &[u8], server: SocketAddr) -> std::io::Result<Vec<u8>> {
    let any: SocketAddr = if server.is_ipv4() { ([0; 4], 0).into() } else { ([0u16; 8], 0).into() };
    let socket = UdpSocket::bind(any).await?;
    // From now on the kernel drops what comes from elsewhere.
    socket.connect(server).await?;
    socket.send(packet).await?;
    let mut answer = vec![0; 4096];
    loop {
        let length = socket.recv(&mut answer).await?;
        if is_answer(&answer[..length], packet) {
            answer.truncate(length);
            return Ok(answer);
        }
    }
}

async fn by_tcp(packet: &[u8], server: SocketAddr) -> std::io::Result<Vec<u8>> {
    let mut stream = TcpStream::connect(server).await?;
    let length = u16::try_from(packet.len()).map_err(std::io::Error::other)?;
    stream.write_all(&[&length.to_be_bytes()[..], packet].concat()).await?;
    let mut answer = vec![0; stream.read_u16().await?.into()];
    stream.read_exact(&mut answer).await?;
    if is_answer(&answer, packet) { Ok(answer) } else { Err(std::io::ErrorKind::InvalidData.into()) }
}

/// Whether it has the question's number and says that it is an answer.
fn is_answer(answer: &[u8], question: &[u8]) -> bool {
    answer.len() >= 12 && answer.get(..2) == question.get(..2) && answer[2] & 0x80 != 0
}

/// The servers that a `resolv.conf` names.
fn servers(text: &str) -> Vec<IpAddr> {
    let named = text.lines().filter_map(|line| {
        let mut words = line.split_ascii_whitespace();
        (words.next() == Some("nameserver")).then(|| words.next()?.parse().ok()).flatten()
    });
    named.take(MOST).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn servers_are_those_of_the_file() {
        let text = "# nameserver 1.1.1.1\nsearch example.org\nnameserver 127.0.0.53\n nameserver ::1 # here\nnameserver x\n\
                    nameserver 10.0.0.1\nnameserver 10.0.0.2\noptions edns0";
        let expected: Vec<IpAddr> = ["127.0.0.53", "::1", "10.0.0.1"].map(|text| text.parse().unwrap()).into();
        assert_eq!(servers(text), expected);
        assert_eq!(servers(""), Vec::<IpAddr>::new());
    }

    #[test]
    fn an_answer_has_the_questions_number() {
        let question = [1, 2, 1, 0, 0, 1, 0, 0, 0, 0, 0, 0];
        let mut answer = question;
        answer[2] = 0x81;
        assert!(is_answer(&answer, &question));
        answer[0] = 9;
        assert!(!is_answer(&answer, &question) && !is_answer(&question, &question) && !is_answer(&[], &question));
    }
}
