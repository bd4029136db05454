//! Makes the document, and holds the checked-in one against it.

use std::collections::{BTreeMap, BTreeSet};

use banger_api::error::{ApiError, ErrorCode};
use banger_api::name;
use schemars::generate::{Contract, SchemaSettings};
use schemars::{Schema, SchemaGenerator};
use serde_json::{Map, Value, json};

use super::table::{Answer, Entry, entries};
use crate::api::{Route, routes, upgrade};

const ABOUT: &str = "\
The API of bangerd, the manager of banger's virtual machines: HTTP/1.1 and JSON over the unix socket /run/banger/bangerd.sock. \
Who may open the socket may do everything.\n\n\
Every failure is an ApiError with a fitting status. Beside those that stand with each operation: a path that is none of these \
is answered with 404 and the code `unsupported`, a method that a path does not take with 405, the header `Allow` and the code \
`method_not_allowed`. What is no HTTP at all gets a 400, or a 431 where its head is too long, without a body. GET also takes HEAD.\n\n\
A body is JSON whatever its content type says, of at most 1 MiB; no body is an empty object. Fields and parameters that the \
daemon does not know are refused; a client ignores those of an answer that it does not know, as more may come. Every answer \
has the headers `banger-api`, the API's number, and `banger-version`.";

fn document() -> Value {
    let mut requests = Schemas::new(Contract::Deserialize);
    let mut answers = Schemas::new(Contract::Serialize);
    let mut entries: BTreeMap<&str, Entry> = entries().into_iter().map(|entry| (entry.id, entry)).collect();
    let mut paths = Map::new();
    for route in routes() {
        let entry = entries.remove(route.id);
        let entry = entry.unwrap_or_else(|| panic!("the route {} has no entry in openapi/table.rs", route.id));
        let method = route.method.as_str().to_lowercase();
        let methods = paths.entry(route.path).or_insert_with(|| json!({}));
        let before =
            methods.as_object_mut().unwrap().insert(method, operation(&route, &entry, &mut requests, &mut answers));
        assert!(before.is_none(), "two routes {} {}", route.method, route.path);
    }
    assert!(entries.is_empty(), "no route has the name of {:?} in openapi/table.rs", entries.keys());
    let mut schemas = requests.definitions();
    for (name, schema) in answers.definitions() {
        let other = schemas.insert(name.clone(), schema.clone());
        assert!(other.is_none_or(|other| other == schema), "{name} is not the same in a request and in an answer");
    }
    let mut document = json!({
        "openapi": "3.1.0",
        "info": {
            "title": "banger",
            "version": banger_api::VERSION.to_string(),
            "license": { "name": "MIT OR Apache-2.0", "identifier": env!("CARGO_PKG_LICENSE") },
        },
        "servers": [{ "url": "http://localhost", "description": "any name, over the unix socket" }],
        "paths": paths,
        "components": { "schemas": schemas },
    });
    tidy(&mut document);
    document["info"]["description"] = ABOUT.into();
    document
}

fn operation(route: &Route, entry: &Entry, requests: &mut Schemas, answers: &mut Schemas) -> Value {
    let mut operation = Map::new();
    operation.insert("operationId".into(), entry.id.into());
    operation.insert("summary".into(), entry.summary.into());
    if !entry.about.is_empty() {
        operation.insert("description".into(), entry.about.into());
    }
    let upgraded = entry.answers.iter().any(|answer| matches!(answer, Answer::Frames(_)));
    let mut parameters: Vec<Value> = in_path(route.path).collect();
    if let Some(make) = entry.query {
        parameters.extend(in_query(&make(&mut requests.generator).to_value()));
    }
    if upgraded {
        let only = entry.answers.len() == 1;
        parameters.push(json!({
            "name": "Upgrade", "in": "header", "required": only, "schema": { "const": upgrade::TOKEN },
            "description": "With `Connection: upgrade`: the connection becomes a stream of frames.",
        }));
    }
    if !parameters.is_empty() {
        operation.insert("parameters".into(), parameters.into());
    }
    if let Some(make) = entry.body {
        let schema = make(&mut requests.generator);
        operation.insert("requestBody".into(), json!({ "content": { "application/json": { "schema": schema } } }));
    }
    operation.insert("responses".into(), responses(entry, answers).into());
    operation.into()
}

fn in_path(path: &str) -> impl Iterator<Item = Value> {
    path.split('/').filter_map(|part| part.strip_prefix('{')?.strip_suffix('}')).map(|part| {
        let (about, schema) = match part {
            "vm" => (
                "A VM's name, its id, or the beginning of its id.",
                json!({ "type": "string", "pattern": name::PATTERN }),
            ),
            "image" => ("An image's name.", json!({ "type": "string", "pattern": name::IMAGE_PATTERN })),
            "name" => ("A VM's name, or one that a VM had.", json!({ "type": "string", "pattern": name::PATTERN })),
            "id" => {
                ("A detached command's id: `main`, or what exec answered.", json!({ "type": "string", "minLength": 1 }))
            }
            other => panic!("say in openapi/assembly.rs what {{{other}}} is"),
        };
        json!({ "name": part, "in": "path", "required": true, "description": about, "schema": schema })
    })
}

/// A query's type is an object; each of its fields is a parameter.
fn in_query(object: &Value) -> Vec<Value> {
    let required: Vec<&str> = object["required"].as_array().into_iter().flatten().filter_map(Value::as_str).collect();
    let parameter = |(name, schema): (&String, &Value)| {
        let mut schema = schema.clone();
        let description = schema.as_object_mut().and_then(|schema| schema.remove("description"));
        // There is no null in a query.
        if schema["type"].is_array() {
            schema["type"] = schema["type"][0].take();
        }
        json!({
            "name": name, "in": "query", "required": required.contains(&name.as_str()),
            "description": description.expect("a query's fields have doc comments"), "schema": schema,
        })
    };
    object["properties"].as_object().expect("a query's type is a struct").iter().map(parameter).collect()
}

fn responses(entry: &Entry, schemas: &mut Schemas) -> Map<String, Value> {
    let mut responses = Map::new();
    let mut respond = |status: &str, response: Value| {
        assert!(responses.insert(status.to_owned(), response).is_none(), "{}: two answers with {status}", entry.id);
    };
    for answer in &entry.answers {
        match answer {
            Answer::Json(make) => {
                respond("200", content("As asked.", "application/json", make(&mut schemas.generator)))
            }
            Answer::Operation(make, last) => {
                let about = format!(
                    "Lines of JSON, each of this schema: `started` first, `result` or `error` last. An `error` has one of \
                     the codes {}.",
                    codes(last)
                );
                respond("200", content(&about, "application/x-ndjson", make(&mut schemas.generator)));
            }
            Answer::Lines(make) => {
                let about = "Lines of JSON, each of this schema.";
                respond("200", content(about, "application/x-ndjson", make(&mut schemas.generator)));
            }
            Answer::Bytes(about) => respond("200", content(about, "application/octet-stream", true.into())),
            Answer::Frames(order) => {
                let about = format!("The connection is a stream of frames from here on (docs/streams.md). {order}");
                let upgrade = json!({ "schema": { "const": upgrade::TOKEN } });
                respond("101", json!({ "description": about, "headers": { "Upgrade": upgrade } }));
            }
            Answer::Nothing(about) => respond("204", json!({ "description": about })),
        }
    }
    let mut failures: BTreeMap<u16, BTreeSet<&str>> = BTreeMap::new();
    for code in &entry.fails {
        failures.entry(code.status()).or_default().insert(word(*code));
    }
    let error = schemas.generator.subschema_for::<ApiError>();
    for (status, codes) in failures {
        let about = codes.iter().map(|code| format!("`{code}`")).collect::<Vec<_>>().join(", ");
        let schema = json!({ "allOf": [error, { "properties": { "code": { "enum": codes } } }] });
        let schema = Schema::try_from(schema).unwrap();
        respond(&status.to_string(), content(&format!("It is refused: {about}."), "application/json", schema));
    }
    responses
}

fn content(about: &str, media: &str, schema: Schema) -> Value {
    json!({ "description": about, "content": { media: { "schema": schema } } })
}

fn codes(codes: &[ErrorCode]) -> String {
    codes.iter().map(|code| format!("`{}`", word(*code))).collect::<Vec<_>>().join(", ")
}

fn word(code: ErrorCode) -> &'static str {
    let word = serde_json::to_value(code).unwrap();
    word.as_str().unwrap().to_owned().leak()
}

/// The schemas of what goes one way.
struct Schemas {
    generator: SchemaGenerator,
}

impl Schemas {
    fn new(contract: Contract) -> Schemas {
        let settings = SchemaSettings::draft2020_12().with(|settings| {
            settings.contract = contract;
            settings.definitions_path = "/components/schemas".into();
            settings.meta_schema = None;
        });
        Schemas { generator: settings.into_generator() }
    }

    fn definitions(mut self) -> Map<String, Value> {
        self.generator.take_definitions(true)
    }
}

/// Doc comments are for rustdoc: their links and line breaks are not for programs in other languages.
fn tidy(value: &mut Value) {
    match value {
        Value::Object(object) => {
            for (name, value) in object.iter_mut() {
                match (name.as_str(), &value) {
                    ("description", Value::String(text)) => *value = plain(text).into(),
                    _ => tidy(value),
                }
            }
        }
        Value::Array(values) => values.iter_mut().for_each(tidy),
        _ => {}
    }
}

fn plain(text: &str) -> String {
    let paragraphs = text.split("\n\n").map(|paragraph| paragraph.split_whitespace().collect::<Vec<_>>().join(" "));
    let text = paragraphs.collect::<Vec<_>>().join("\n\n");
    text.replace("[`crate::", "[`").replace("[`", "`").replace("`]", "`")
}

#[cfg(test)]
mod tests {
    use super::*;

    /// How the checked-in document is made anew.
    const REMEDY: &str =
        "run `make openapi`, look at the difference, and say in CHANGELOG.md what it means to programs";

    #[test]
    fn the_checked_in_document_is_what_the_code_says() {
        let made = serde_json::to_string_pretty(&document()).unwrap() + "\n";
        let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../../docs/openapi.json");
        #[expect(clippy::disallowed_methods, reason = "who calls this test says what it is for")]
        if std::env::var_os("BANGER_BLESS").is_some() {
            std::fs::write(path, &made).unwrap();
        }
        let known = std::fs::read_to_string(path).unwrap();
        let differs = known.lines().zip(made.lines()).enumerate().find(|(_, (known, made))| known != made);
        if let Some((line, (known, made))) = differs {
            panic!("docs/openapi.json is not what the code says. Line {}:\n- {known}\n+ {made}\n{REMEDY}", line + 1);
        }
        assert_eq!(known.len(), made.len(), "docs/openapi.json is not as long as what the code says; {REMEDY}");
    }

    #[test]
    fn every_code_that_an_answer_can_have_is_said() {
        // Those that no single operation has stand in the document's description.
        let said = |entry: &Entry| {
            let lines = entry.answers.iter().flat_map(|answer| match answer {
                Answer::Operation(_, last) => last.to_vec(),
                _ => Vec::new(),
            });
            entry.fails.iter().copied().chain(lines).map(word).collect::<Vec<_>>()
        };
        let said: BTreeSet<&str> = entries().iter().flat_map(said).collect();
        let document = document();
        let all = document["components"]["schemas"]["ErrorCode"]["oneOf"].as_array().unwrap();
        let all = all.iter().flat_map(|code| match &code["enum"] {
            Value::Array(codes) => codes.clone(),
            _ => vec![code["const"].clone()],
        });
        let unsaid: Vec<String> = all
            .filter_map(|code| code.as_str().map(str::to_owned))
            .filter(|code| !said.contains(code.as_str()) && !ABOUT.contains(&format!("`{code}`")))
            .collect();
        assert_eq!(unsaid, ["forbidden"], "no operation says that it can fail so");
    }
}
