//! Every bound that docs/openapi.json sets on a request: the daemon refuses a value over it, and does not refuse a
//! value at it for that reason. An unknown kind of bound fails the test, so that nobody adds one that nothing enforces.

#![expect(clippy::unwrap_used, reason = "a test that fails shall panic")]

use serde_json::{Map, Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::UnixStream;

use crate::support::{House, Verb};

/// A public key.
const KEY: &str = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIHUSU7HbYh3Yxi6Dk0DSDBvgv3VfrtdbZ1nAnhL3RWaH";

/// Words of a schema that set no bound.
const NO_BOUNDS: [&str; 4] = ["description", "default", "title", "$ref"];

/// A value, and whether it is over a bound.
#[derive(Clone, Debug)]
struct Case {
    about: String,
    value: Value,
    over: bool,
}

/// Texts that fit a pattern, up to the longest, and texts that do not. The last one that fits may be longer.
fn texts(pattern: &str) -> (Vec<String>, Vec<String>) {
    let long = |begin: &str, length: usize| begin.to_owned() + &"a".repeat(length - begin.len());
    let all = |words: &[&str]| words.iter().map(|word| (*word).to_owned()).collect::<Vec<_>>();
    let (fit, unfit) = match pattern {
        "^[a-z]([a-z0-9-]{0,61}[a-z0-9])?$" => {
            (all(&["a", "a-9", &long("", 63)]), all(&["", "-a", "a-", "A", "a_b", "a\n", &long("", 64)]))
        }
        "^[a-z][a-z0-9.-]{0,62}$" => (all(&["a", "a.b-", &long("", 63)]), all(&["", ".", "A", "a/b", &long("", 64)])),
        "^[a-z][a-z0-9-]{0,31}$" => (all(&["a", &long("", 32)]), all(&["", "1a", "A", "a.b", &long("", 33)])),
        "^[a-z_][a-z0-9_-]{0,31}$" => (all(&["a", &long("_", 32)]), all(&["", "1", "A", "a b", &long("", 33)])),
        "^[a-z0-9][a-z0-9+.-]{1,127}$" => (all(&["ab", &long("", 128)]), all(&["a", "-ab", "A b", &long("", 129)])),
        "^[0-9a-f]{16}-[0-9]{1,20}$" => (
            all(&["0123456789abcdef-1", "0123456789abcdef-18446744073709551615"]),
            all(&["", "1", "0123456789abcdef-", "0123456789ABCDEF-1", "0123456789abcdef-123456789012345678901"]),
        ),
        "^[^\\x00]*$" => (all(&["", "x"]), all(&["\0", "a\0"])),
        "^[^=\\x00]+$" => (all(&["a", "Ü"]), all(&["", "a=b", "a\0"])),
        "^/[^\\x00]*$" => (all(&["/"]), all(&["", "x", "/\0"])),
        "^(/[^\\x00]*)?$" => (all(&["", "/"]), all(&["x", "/\0"])),
        key if key.starts_with("^(ssh-ed25519 ") => (
            all(&[KEY, &format!("{KEY} me@here")]),
            all(&["", "ssh-ed25519", "ssh-dss AAAA", &format!("{KEY}\n"), &format!("{KEY} \u{7f}")]),
        ),
        other => panic!("say here what fits {other}"),
    };
    (fit, unfit)
}

struct Document(Value);

impl Document {
    fn read() -> Document {
        let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../../docs/openapi.json");
        Document(serde_json::from_str(&std::fs::read_to_string(path).unwrap()).unwrap())
    }

    fn resolve<'a>(&'a self, schema: &'a Value) -> &'a Value {
        match schema["$ref"].as_str() {
            Some(path) => self.resolve(self.0.pointer(&path[1..]).unwrap()),
            None => schema,
        }
    }

    /// The smallest value that a schema allows.
    fn sample(&self, schema: &Value) -> Value {
        let schema = self.resolve(schema);
        if let Some(ways) = schema["oneOf"].as_array().or(schema["anyOf"].as_array()) {
            return self.sample(&ways[0]);
        }
        if let Some(pattern) = schema["pattern"].as_str() {
            return texts(pattern).0[0].clone().into();
        }
        if !schema["const"].is_null() {
            return schema["const"].clone();
        }
        match kind(schema) {
            "object" => {
                let required = schema["required"].as_array().into_iter().flatten().filter_map(Value::as_str);
                required.map(|name| (name.to_owned(), self.sample(&schema["properties"][name]))).collect()
            }
            "integer" => schema["minimum"].as_u64().unwrap_or(0).into(),
            "boolean" => false.into(),
            "array" => json!([]),
            "string" => "x".into(),
            other => panic!("no sample of {other}"),
        }
    }

    /// A value on each side of each bound; `whole` puts it into the request.
    fn cases(&self, place: &str, schema: &Value, whole: &dyn Fn(Value) -> Value, into: &mut Vec<Case>) {
        let schema = self.resolve(schema);
        let mut add = |bound: &str, over: bool, value: Value| {
            let side = if over { "over" } else { "at" };
            into.push(Case { about: format!("{place}: {side} {bound}"), value: whole(value), over });
        };
        let bounds = schema.as_object().unwrap();
        for (word, bound) in bounds {
            match (word.as_str(), bound) {
                ("type", _) => add("type", true, if kind(schema) == "string" { json!(7) } else { json!("x") }),
                ("const", Value::String(_)) => add("const", false, bound.clone()),
                ("enum", Value::Array(words)) => words.iter().for_each(|word| add("enum", false, word.clone())),
                ("pattern", Value::String(pattern)) => {
                    let (fit, unfit) = texts(pattern);
                    fit.into_iter().for_each(|text| add("pattern", false, text.into()));
                    unfit.into_iter().for_each(|text| add("pattern", true, text.into()));
                }
                ("minLength", _) if bound == 1 => add("minLength", true, "".into()),
                ("maxLength", _) => {
                    let begin = texts(schema["pattern"].as_str().unwrap()).0.pop().unwrap();
                    let most = usize::try_from(bound.as_u64().unwrap()).unwrap();
                    for (length, over) in [(most, false), (most + 1, true)] {
                        add("maxLength", over, (begin.clone() + &"x".repeat(length - begin.len())).into());
                    }
                }
                ("maxItems", _) => {
                    let most = usize::try_from(bound.as_u64().unwrap()).unwrap();
                    let item = self.sample(&schema["items"]);
                    add("maxItems", false, vec![item.clone(); most].into());
                    add("maxItems", true, vec![item; most + 1].into());
                }
                ("minimum", _) => {
                    let least = bound.as_i64().unwrap();
                    add("minimum", false, least.into());
                    add("minimum", true, (least - 1).into());
                }
                ("maximum", _) => {
                    let most = bound.as_u64().unwrap();
                    add("maximum", false, most.into());
                    // One more than the largest number of all becomes a number that is not whole.
                    add("maximum", true, most.checked_add(1).map_or(json!(1.8446744073709552e19), Into::into));
                }
                ("format", Value::String(format)) => match format.as_str() {
                    "uint16" => add("format", true, 65536.into()),
                    "uint32" => add("format", true, 4_294_967_296_u64.into()),
                    "uint64" => add("format", true, json!(1.8446744073709552e19)),
                    "ip" => {
                        add("format", false, "127.0.0.1".into());
                        add("format", true, "nowhere".into());
                    }
                    other => panic!("{place}: say here what a {other} is"),
                },
                ("required", Value::Array(names)) => {
                    for name in names {
                        let mut less = self.sample(schema);
                        less.as_object_mut().unwrap().remove(name.as_str().unwrap());
                        add("required", true, less);
                    }
                }
                ("additionalProperties", Value::Bool(false)) => {
                    let mut more = self.sample(schema);
                    more["no_such_field"] = 1.into();
                    add("additionalProperties", true, more);
                }
                ("oneOf" | "anyOf", Value::Array(ways)) => {
                    // Either some words, or one thing or null.
                    let words = ways.iter().all(|way| way["const"].is_string());
                    let null = ways.len() == 2 && kind(&ways[1]) == "null";
                    assert!(words || null, "{place}: {ways:?}");
                    if words {
                        add("oneOf", true, "no such word".into());
                    }
                }
                ("properties" | "propertyNames" | "items", Value::Object(_)) => {}
                ("additionalProperties", Value::Object(_)) => {}
                (word, _) => assert!(NO_BOUNDS.contains(&word), "{place}: nothing is known to enforce {word}: {bound}"),
            }
        }
        self.cases_within(place, schema, whole, into);
    }

    /// The cases of a value's parts.
    fn cases_within(&self, place: &str, schema: &Value, whole: &dyn Fn(Value) -> Value, into: &mut Vec<Case>) {
        for way in ["oneOf", "anyOf"].iter().filter_map(|word| schema[word].as_array()).flatten() {
            if kind(way) != "null" {
                self.cases(place, way, whole, into);
            }
        }
        let fields = schema["properties"].as_object();
        for (name, field) in fields.into_iter().flatten() {
            let with = |value: Value| {
                let mut object = self.sample(schema);
                object[name] = value;
                whole(object)
            };
            self.cases(&format!("{place}.{name}"), field, &with, into);
        }
        let entry = |name: &str, value: Value| whole(Map::from_iter([(name.to_owned(), value)]).into());
        if schema["additionalProperties"].is_object() {
            let of = &schema["additionalProperties"];
            self.cases(&format!("{place}.*"), of, &|value| entry("key", value), into);
        }
        if schema["propertyNames"].is_object() {
            let named = |name: Value| entry(name.as_str().unwrap(), "x".into());
            self.cases(&format!("a name in {place}"), &schema["propertyNames"], &named, into);
        }
        if schema["items"].is_object() {
            self.cases(&format!("{place}[]"), &schema["items"], &|value| whole(json!([value])), into);
        }
    }
}

fn kind(schema: &Value) -> &str {
    schema["type"].as_str().or(schema["type"][0].as_str()).unwrap_or_default()
}

/// The answer's status, and the message of a refusal. Waits for no more than that.
async fn ask(house: &House, head: &str, body: &[u8]) -> (u16, String) {
    let mut stream = UnixStream::connect(house.paths().socket()).await.unwrap();
    let head = format!("{head}host: banger\r\nconnection: close\r\ncontent-length: {}\r\n\r\n", body.len());
    stream.write_all(head.as_bytes()).await.unwrap();
    drop(stream.write_all(body).await);
    let mut answer = Vec::new();
    while !answer.windows(4).any(|end| end == b"\r\n\r\n") {
        assert!(stream.read_buf(&mut answer).await.unwrap() > 0, "{head}: no answer");
    }
    let status = String::from_utf8_lossy(&answer)[9..12].parse().unwrap();
    if status == 400 {
        drop(stream.read_to_end(&mut answer).await);
    }
    (status, String::from_utf8_lossy(&answer).into_owned())
}

fn escape(text: &str) -> String {
    text.bytes().map(|byte| format!("%{byte:02X}")).collect()
}

/// A path with this value of one parameter. The other parameters name nothing that exists, so that an accepted request
/// has no effect.
fn path_with(path: &str, name: &str, value: &str) -> String {
    let path = path.replace(&format!("{{{name}}}"), &escape(value));
    ["vm", "image", "name", "id"].iter().fold(path, |path, name| path.replace(&format!("{{{name}}}"), "nobody"))
}

#[test]
fn every_bound_of_the_document_is_enforced() {
    let mut house = House::new();
    house.listen();
    house.run_or_die(Verb::Create).unwrap().unwrap();
    let document = Document::read();
    let (mut asked, mut wrong) = (0, Vec::new());
    for (path, methods) in document.0["paths"].as_object().unwrap() {
        for (method, operation) in methods.as_object().unwrap() {
            let method = method.to_uppercase();
            let id = operation["operationId"].as_str().unwrap();
            let parameters: Vec<&Value> = operation["parameters"].as_array().into_iter().flatten().collect();
            let upgrade = parameters.iter().any(|parameter| parameter["in"] == "header");
            let headers = if upgrade { "upgrade: banger-stream\r\nconnection: upgrade\r\n" } else { "" };
            let in_query = parameters.iter().filter(|parameter| parameter["in"] == "query");
            let query: Map<String, Value> = in_query
                .clone()
                .filter(|parameter| parameter["required"] == true)
                .map(|parameter| {
                    (parameter["name"].as_str().unwrap().to_owned(), document.sample(&parameter["schema"]))
                })
                .collect();
            let head = |path: &str, query: &Map<String, Value>| {
                let pairs = query.iter().map(|(name, value)| {
                    let value = value.as_str().map_or_else(|| value.to_string(), str::to_owned);
                    format!("{name}={}", escape(&value))
                });
                let query = pairs.collect::<Vec<_>>().join("&");
                let mark = if query.is_empty() { "" } else { "?" };
                format!("{method} {path}{mark}{query} HTTP/1.1\r\n{headers}")
            };

            let mut requests: Vec<(Case, String, Vec<u8>)> = Vec::new();
            let body = &operation["requestBody"]["content"]["application/json"]["schema"];
            let nothing = if body.is_object() { document.sample(body) } else { json!({}) };
            // The daemon refuses a value over a bound even if the VM exists, and before it looks at the VM.
            let at = |case: &Case| if case.over { path_with(path, "vm", "one") } else { path_with(path, "", "") };
            for parameter in &parameters {
                let (name, schema) = (parameter["name"].as_str().unwrap(), &parameter["schema"]);
                let mut cases = Vec::new();
                document.cases(name, schema, &|value| value, &mut cases);
                if parameter["in"] == "header" {
                    // The only kind of bound that there is on a header.
                    assert!(schema["const"].is_string(), "{id}: {name}");
                    let about = format!("{name}: over const");
                    cases.push(Case { about, value: "banger".into(), over: true });
                }
                for case in cases {
                    let text = case.value.as_str().map_or_else(|| case.value.to_string(), str::to_owned);
                    let head = match parameter["in"].as_str().unwrap() {
                        // Every value is text there, and an empty one makes another path.
                        "path" if text.is_empty() || case.about.ends_with("type") => continue,
                        "path" => head(&path_with(path, name, &text), &query),
                        "query" if kind(schema) == "string" && case.about.ends_with("type") => continue,
                        "query" => head(
                            &at(&case),
                            &Map::from_iter(query.clone().into_iter().chain([(name.into(), text.into())])),
                        ),
                        "header" => {
                            head(&at(&case), &query).replace("upgrade: banger-stream", &format!("{name}: {text}"))
                        }
                        other => panic!("{id}: nothing is known of a parameter in {other}"),
                    };
                    requests.push((case, head, nothing.to_string().into_bytes()));
                }
            }
            for name in query.keys() {
                let mut less = query.clone();
                less.remove(name);
                let case = Case { about: format!("{name}: over required"), value: Value::Null, over: true };
                let head = head(&at(&case), &less);
                requests.push((case, head, Vec::new()));
            }
            if !query.is_empty() || in_query.count() > 0 {
                let mut more = query.clone();
                more.insert("no_such_parameter".into(), "1".into());
                let case = Case { about: "an unknown parameter".into(), value: Value::Null, over: true };
                let head = head(&at(&case), &more);
                requests.push((case, head, Vec::new()));
            }
            if body.is_object() {
                let mut cases = Vec::new();
                document.cases("body", body, &|value| value, &mut cases);
                for case in cases {
                    let mut body = case.value.clone();
                    if id == "createVm" && body["image"].is_null() && body.is_object() {
                        body["image"] = "nothing".into();
                    }
                    let head = head(&at(&case), &query);
                    requests.push((case, head, body.to_string().into_bytes()));
                }
            }

            for (case, head, body) in requests {
                let (status, answer) = house.run(async |_| ask(&house, &head, &body).await);
                let shown =
                    format!("{id}: {}: {head:.200} {:.200}: {answer:.800}", case.about, String::from_utf8_lossy(&body));
                let in_path = case.over && path.contains(&format!("{{{}}}", case.about.split(':').next().unwrap()));
                let right = if in_path {
                    // Nothing has such a name.
                    matches!(status, 400 | 404)
                } else if case.over {
                    status == 400 && answer.contains(r#""code":"invalid","message":"the request's "#)
                } else {
                    status != 400 || !answer.contains(r#""message":"the request's "#)
                };
                if !right {
                    wrong.push(shown);
                }
                asked += 1;
            }
        }
    }
    assert!(wrong.is_empty(), "{} of {asked} requests:\n{}", wrong.len(), wrong.join("\n\n"));
    // The number when this was written; fewer mean that the test looks in the wrong place.
    assert!(asked > 250, "only {asked} requests");
}
