//! From a packet that asks to a packet that answers, or to the finding that somebody else has to. Pure.

use banger_api::name::HOST;
use domain::base::iana::{Class, Opcode, OptRcode, Rcode};
use domain::base::message_builder::{AdditionalBuilder, AnswerBuilder, PushError};
use domain::base::name::ToLabelIter;
use domain::base::{Message, MessageBuilder, Name, ParsedName, Question, Rtype, Serial, Ttl};
use domain::rdata::{A, Ns, Ptr, Soa};

use super::zone::{Found, Zone};

/// How long an answer may be kept, in seconds. Short, as machines come and go.
const KEEP: Ttl = Ttl::from_secs(5);

/// How long the answer that there is nothing may be kept: a machine may be there the next moment.
const KEEP_NOTHING: Ttl = Ttl::from_secs(1);

/// The longest packet that is taken by UDP; what passes every network in one piece.
pub const LONGEST: u16 = 1232;

/// What to do about a packet.
#[derive(Debug, PartialEq, Eq)]
pub enum Reply {
    /// Send this.
    Answer(Vec<u8>),
    /// Somebody else knows.
    Foreign,
    /// Nothing: it is no question, and to answer it could go on for ever.
    Silence,
}

type Asked<'a> = Question<ParsedName<&'a [u8]>>;

/// What to do about a packet.
pub fn reply(zone: &Zone, packet: &[u8]) -> Reply {
    let Ok(message) = Message::from_octets(packet) else { return Reply::Silence };
    if message.header().qr() {
        return Reply::Silence;
    }
    if message.header().opcode() != Opcode::QUERY {
        return refuse(&message, Rcode::NOTIMP);
    }
    let Ok(question) = message.sole_question() else { return refuse(&message, Rcode::FORMERR) };
    if message.opt().is_some_and(|opt| opt.version() > 0) {
        return bad_version(&message);
    }
    if question.qclass() != Class::IN {
        return refuse(&message, Rcode::REFUSED);
    }
    let found = zone.look_up(question.qname().iter_labels().rev().skip(1).map(|label| label.as_slice()));
    if found == Found::Foreign {
        return Reply::Foreign;
    }
    let answer = compose(zone, &message, &question, found);
    answer.map_or_else(|_| refuse(&message, Rcode::SERVFAIL), Reply::Answer)
}

/// The answer to a question that nobody here may be asked, or that makes no sense. It has no question in it where there is
/// not exactly one: names that are written short in a packet would become a very long one.
pub fn refuse(message: &Message<&[u8]>, code: Rcode) -> Reply {
    let mut answer = match message.sole_question() {
        Ok(_) => MessageBuilder::new_vec().start_error(message, code),
        Err(_) => MessageBuilder::new_vec().answer(),
    };
    let asked = message.header();
    let header = answer.header_mut();
    header.set_id(asked.id());
    header.set_qr(true);
    header.set_opcode(asked.opcode());
    header.set_rd(asked.rd());
    header.set_rcode(code);
    finished(message, answer.additional()).map_or(Reply::Silence, Reply::Answer)
}

fn bad_version(message: &Message<&[u8]>) -> Reply {
    let compose = || {
        let mut additional = MessageBuilder::new_vec().start_answer(message, Rcode::NOERROR)?.additional();
        additional.opt(|opt| {
            opt.set_udp_payload_size(LONGEST);
            opt.set_rcode(OptRcode::BADVERS);
            Ok(())
        })?;
        Ok::<_, PushError>(additional.finish())
    };
    compose().map_or(Reply::Silence, Reply::Answer)
}

fn compose(
    zone: &Zone,
    message: &Message<&[u8]>,
    question: &Asked<'_>,
    found: Found<'_>,
) -> Result<Vec<u8>, PushError> {
    let code = if found == Found::Nothing { Rcode::NXDOMAIN } else { Rcode::NOERROR };
    let mut answer = MessageBuilder::new_vec().start_answer(message, code)?;
    answer.header_mut().set_aa(true);
    let (owner, kind) = (question.qname(), question.qtype());
    let any = |wanted| kind == wanted || kind == Rtype::ANY;
    match found {
        Found::Address(address) if any(Rtype::A) => {
            let [a, b, c, d] = address.octets();
            answer.push((owner, KEEP, A::from_octets(a, b, c, d)))?;
        }
        Found::Name(name) if any(Rtype::PTR) => answer.push((owner, KEEP, Ptr::new(below(zone, name)?)))?,
        Found::Top if any(Rtype::SOA) => answer.push((owner, KEEP, authority(zone)?))?,
        Found::Top if kind == Rtype::NS => answer.push((owner, KEEP, Ns::new(below(zone, HOST)?)))?,
        _ => return nothing(zone, message, question, answer),
    }
    finished(message, answer.additional())
}

/// That there is nothing of the kind goes with how long that may be believed, under the name of the zone that says so, which
/// has to be an end of the name that was asked for (RFC 2308).
fn nothing(
    zone: &Zone,
    message: &Message<&[u8]>,
    question: &Asked<'_>,
    answer: AnswerBuilder<Vec<u8>>,
) -> Result<Vec<u8>, PushError> {
    let mut section = answer.authority();
    let labels = zone.labels(question.qname().iter_labels().rev().skip(1).map(|label| label.as_slice()));
    // With that of the root.
    match question.qname().iter_suffixes().find(|suffix| suffix.label_count() == labels + 1) {
        Some(top) => section.push((top, KEEP_NOTHING, authority(zone)?))?,
        None => section.push((question.qname(), KEEP_NOTHING, authority(zone)?))?,
    }
    finished(message, section.additional())
}

fn finished(message: &Message<&[u8]>, mut additional: AdditionalBuilder<Vec<u8>>) -> Result<Vec<u8>, PushError> {
    // Only who speaks EDNS is answered so (RFC 6891, 7).
    if message.opt().is_some() {
        additional.opt(|opt| {
            opt.set_udp_payload_size(LONGEST);
            Ok(())
        })?;
    }
    Ok(additional.finish())
}

fn authority(zone: &Zone) -> Result<Soa<Name<Vec<u8>>>, PushError> {
    let (hour, day) = (Ttl::from_secs(3600), Ttl::from_secs(86_400));
    Ok(Soa::new(below(zone, HOST)?, below(zone, "root")?, Serial(1), hour, hour, day, KEEP_NOTHING))
}

fn below(zone: &Zone, name: &str) -> Result<Name<Vec<u8>>, PushError> {
    Name::vec_from_str(&format!("{name}.{}", zone.domain())).map_err(|_| PushError::ShortBuf)
}

#[cfg(test)]
mod tests {
    use super::*;
    use domain::base::RecordSection;
    use domain::rdata::AllRecordData;
    use proptest::prelude::*;

    fn zone() -> Zone {
        Zone::new("vm", "10.77.0.0/24".parse().unwrap()).with("devbox", [10, 77, 0, 2].into())
    }

    fn question(name: &str, kind: Rtype) -> Vec<u8> {
        let mut builder = MessageBuilder::new_vec();
        builder.header_mut().set_id(4711);
        builder.header_mut().set_rd(true);
        let mut builder = builder.question();
        builder.push((Name::vec_from_str(name).unwrap(), kind)).unwrap();
        builder.finish()
    }

    /// What an answer says: its code, and its records one by one.
    fn told(packet: &[u8]) -> String {
        let Reply::Answer(bytes) = reply(&zone(), packet) else { return format!("{:?}", reply(&zone(), packet)) };
        let message = Message::from_octets(bytes.as_slice()).unwrap();
        let header = message.header();
        assert!(header.qr() && header.id() == Message::from_octets(packet).unwrap().header().id());
        let mut text = header.rcode().to_string();
        if header.aa() {
            text += " aa";
        }
        let mut list = |section: RecordSection<'_, &[u8]>| {
            for record in section.limit_to::<AllRecordData<_, _>>() {
                let record = record.unwrap();
                text += &format!("; {} {} {}", record.owner(), record.ttl().as_secs(), record.data());
            }
        };
        list(message.answer().unwrap());
        list(message.authority().unwrap());
        text
    }

    const SOA: &str = "vm 1 host.vm. root.vm. 1 3600 3600 86400 1";

    #[test]
    fn machines_are_told_by_name_and_by_address() {
        assert_eq!(told(&question("devbox.vm", Rtype::A)), "NOERROR aa; devbox.vm 5 10.77.0.2");
        assert_eq!(told(&question("www.DevBox.vm", Rtype::ANY)), "NOERROR aa; www.DevBox.vm 5 10.77.0.2");
        assert_eq!(
            told(&question("2.0.77.10.in-addr.arpa", Rtype::PTR)),
            "NOERROR aa; 2.0.77.10.in-addr.arpa 5 devbox.vm."
        );
        assert_eq!(told(&question("vm", Rtype::SOA)), format!("NOERROR aa; {}", SOA.replacen(" 1 ", " 5 ", 1)));
    }

    #[test]
    fn nothing_is_told_with_how_long_it_may_be_believed() {
        assert_eq!(told(&question("web.vm", Rtype::A)), format!("NXDOMAIN aa; {SOA}"));
        assert_eq!(told(&question("devbox.vm", Rtype::AAAA)), format!("NOERROR aa; {SOA}"));
        let reverse = SOA.replacen("vm", "0.77.10.in-addr.arpa", 1);
        assert_eq!(told(&question("3.0.77.10.in-addr.arpa", Rtype::PTR)), format!("NXDOMAIN aa; {reverse}"));
        assert_eq!(told(&question("x.2.0.77.10.in-addr.arpa", Rtype::PTR)), format!("NXDOMAIN aa; {reverse}"));
        assert_eq!(told(&question("a.b.Web.VM", Rtype::A)), format!("NXDOMAIN aa; {}", SOA.replacen("vm", "VM", 1)));
    }

    #[test]
    fn what_is_not_ours_is_passed_on() {
        for name in ["example.org", "vm.example.org", "1.1.1.10.in-addr.arpa", "."] {
            assert_eq!(reply(&zone(), &question(name, Rtype::A)), Reply::Foreign, "{name}");
        }
    }

    #[test]
    fn who_speaks_edns_is_answered_so() {
        let ask = |version: u8| {
            let mut builder = MessageBuilder::new_vec().question();
            builder.push((Name::vec_from_str("devbox.vm").unwrap(), Rtype::A)).unwrap();
            let mut builder = builder.additional();
            builder
                .opt(|opt| {
                    opt.set_udp_payload_size(4096);
                    opt.set_version(version);
                    Ok(())
                })
                .unwrap();
            let Reply::Answer(bytes) = reply(&zone(), &builder.finish()) else { panic!("no answer") };
            let message = Message::from_octets(bytes).unwrap();
            let opt = message.opt().unwrap();
            (opt.udp_payload_size(), opt.rcode(message.header()), message.header_counts().ancount())
        };
        assert_eq!(ask(0), (LONGEST, OptRcode::NOERROR, 1));
        assert_eq!(ask(1), (LONGEST, OptRcode::BADVERS, 0));
        let Reply::Answer(plain) = reply(&zone(), &question("devbox.vm", Rtype::A)) else { panic!("no answer") };
        assert!(Message::from_octets(plain).unwrap().opt().is_none());
    }

    #[test]
    fn what_is_no_question_is_refused_or_passed_over() {
        assert_eq!(reply(&zone(), b""), Reply::Silence);
        assert_eq!(reply(&zone(), &[0; 11]), Reply::Silence);
        let mut answer = question("devbox.vm", Rtype::A);
        answer[2] |= 0x80;
        assert_eq!(reply(&zone(), &answer), Reply::Silence, "to an answer");
        let mut update = question("devbox.vm", Rtype::A);
        update[2] |= 5 << 3;
        assert_eq!(told(&update), "NOTIMP");
        assert_eq!(told(&[0; 12]), "FORMERR", "no question");
        // Two thousand questions for one long name.
        let mut many = question(&format!("{0}.{0}.{0}", "a".repeat(60)), Rtype::A);
        many[4..6].copy_from_slice(&2000u16.to_be_bytes());
        for _ in 1..2000 {
            many.extend([0xc0, 12, 0, 1, 0, 1]);
        }
        let Reply::Answer(refused) = reply(&zone(), &many) else { panic!("no answer") };
        assert_eq!(refused.len(), 12);
        let mut chaos = question("devbox.vm", Rtype::A);
        let end = chaos.len() - 1;
        chaos[end] = 3;
        assert_eq!(told(&chaos), "REFUSED");
    }

    proptest! {
        #[test]
        fn whatever_comes_the_answer_is_short_and_no_question(mut packet in proptest::collection::vec(any::<u8>(), 0..600), honest in any::<bool>()) {
            if honest {
                // Most made-up packets would be refused for their first bytes.
                let head = question("devbox.vm", Rtype::A);
                let length = head.len().min(packet.len());
                packet[..length].copy_from_slice(&head[..length]);
            }
            if let Reply::Answer(answer) = reply(&zone(), &packet) {
                prop_assert!(answer.len() <= usize::from(LONGEST) && answer[2] & 0x80 != 0 && answer[..2] == packet[..2]);
            }
        }
    }
}
