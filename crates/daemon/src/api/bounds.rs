//! Enforces the bounds that the API's document sets on requests, before any handler sees a request: lengths, sizes,
//! numbers, patterns, and the values of headers. It reads the document itself, so that every bound in the document holds. serde checks a request's
//! shape, its fields and their types; the document is made from the same types. The handlers look up the names in a
//! path.

use std::collections::BTreeMap;
use std::sync::{LazyLock, OnceLock};

use axum::body::Body;
use axum::extract::{Query, Request};
use axum::http::HeaderMap;
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use regex_automata::nfa::thompson::pikevm::PikeVM;
use serde::Deserialize;
use serde_json::Value;

use super::error::Failure;
use super::{openapi, request};

/// The document's part about requests. Read at the first request that has parameters or a body.
static DOCUMENT: LazyLock<Document> =
    LazyLock::new(|| serde_json::from_str(openapi::DOCUMENT).expect("a test reads the document, too"));

const MIB: u64 = 1 << 20;

/// Reads the document, so that the first request does not have to.
pub fn read() {
    LazyLock::force(&DOCUMENT);
}

/// Passes a request on if its parameters and its body are within the bounds of its operation.
pub(super) async fn enforce(operation: &'static str, request: Request, next: Next) -> Response {
    match within(operation, request).await {
        Ok(request) => next.run(request).await,
        Err(failure) => failure.into_response(),
    }
}

async fn within(operation: &str, request: Request) -> Result<Request, Failure> {
    let (parts, body) = request.into_parts();
    let Some(operation) = DOCUMENT.operation(operation) else { return Ok(Request::from_parts(parts, body)) };
    operation.check_headers(&parts.headers).map_err(|excess| request::out_of_bounds("headers", &excess))?;
    if parts.uri.query().is_none() && axum::body::HttpBody::is_end_stream(&body) {
        return Ok(Request::from_parts(parts, body));
    }
    // The handler refuses a body that cannot be read.
    if let Ok(Query(query)) = Query::<Vec<(String, String)>>::try_from_uri(&parts.uri) {
        for (name, value) in query {
            if let Some(schema) = operation.query(&name) {
                schema
                    .check(&name, &Value::String(value))
                    .map_err(|excess| request::out_of_bounds("query", &excess))?;
            }
        }
    }
    let Some(schema) = operation.body() else { return Ok(Request::from_parts(parts, body)) };
    let bytes = request::bytes(body).await?;
    if let Ok(value) = serde_json::from_slice::<Value>(&bytes) {
        schema.check("", &value).map_err(|excess| request::out_of_bounds("body", &excess))?;
    }
    Ok(Request::from_parts(parts, Body::from(bytes)))
}

#[derive(Deserialize)]
struct Document {
    paths: BTreeMap<String, BTreeMap<String, Operation>>,
    components: Components,
}

#[derive(Deserialize)]
struct Components {
    schemas: BTreeMap<String, Schema>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Operation {
    operation_id: String,
    #[serde(default)]
    parameters: Vec<Parameter>,
    request_body: Option<RequestBody>,
}

#[derive(Deserialize)]
struct Parameter {
    name: String,
    r#in: String,
    schema: Schema,
}

#[derive(Deserialize)]
struct RequestBody {
    content: BTreeMap<String, Media>,
}

#[derive(Deserialize)]
struct Media {
    schema: Schema,
}

/// A schema's bounds. If a field may be one of several things, each bound applies to the one thing that it fits.
#[derive(Deserialize, Default)]
#[serde(rename_all = "camelCase", default)]
struct Schema {
    #[serde(rename = "$ref")]
    reference: Option<String>,
    /// The only value of a header.
    #[serde(rename = "const")]
    only: Option<String>,
    pattern: Option<String>,
    min_length: Option<usize>,
    max_length: Option<usize>,
    min_items: Option<usize>,
    max_items: Option<usize>,
    min_properties: Option<usize>,
    max_properties: Option<usize>,
    minimum: Option<u64>,
    maximum: Option<u64>,
    properties: BTreeMap<String, Schema>,
    property_names: Option<Box<Schema>>,
    additional_properties: Option<Additional>,
    items: Option<Box<Schema>>,
    any_of: Vec<Schema>,
    all_of: Vec<Schema>,
    /// Compiled from the pattern at its first use.
    #[serde(skip)]
    matcher: OnceLock<PikeVM>,
}

/// Whether the schema allows fields that it does not name, or the schema of these fields.
#[derive(Deserialize)]
#[serde(untagged)]
enum Additional {
    Allowed(#[expect(dead_code, reason = "serde refuses fields that a type does not have")] bool),
    As(Box<Schema>),
}

impl Document {
    fn operation(&self, id: &str) -> Option<&Operation> {
        self.paths.values().flat_map(BTreeMap::values).find(|operation| operation.operation_id == id)
    }
}

impl Operation {
    fn query(&self, name: &str) -> Option<&Schema> {
        self.parameters
            .iter()
            .find(|parameter| parameter.r#in == "query" && parameter.name == name)
            .map(|of| &of.schema)
    }

    /// A handler that needs a header says so itself. Here, one that it does not need must not say something else.
    fn check_headers(&self, headers: &HeaderMap) -> Result<(), String> {
        for Parameter { name, schema, .. } in self.parameters.iter().filter(|parameter| parameter.r#in == "header") {
            if let (Some(only), Some(value)) = (&schema.only, headers.get(name))
                && value != only
            {
                let value = shown(&String::from_utf8_lossy(value.as_bytes()));
                return Err(format!("{name} is \"{value}\", and can only be \"{only}\""));
            }
        }
        Ok(())
    }

    fn body(&self) -> Option<&Schema> {
        self.request_body.as_ref()?.content.get("application/json").map(|media| &media.schema)
    }
}

impl Schema {
    /// Names the bound that a value exceeds, if it exceeds one; `place` is the value's place in the request.
    fn check(&self, place: &str, value: &Value) -> Result<(), String> {
        if let Some(name) = self.reference.as_deref().and_then(|path| path.rsplit('/').next()) {
            DOCUMENT.components.schemas.get(name).map_or(Ok(()), |schema| schema.check(place, value))?;
        }
        for schema in self.any_of.iter().chain(&self.all_of) {
            schema.check(place, value)?;
        }
        match value {
            Value::String(text) => self.check_text(place, text),
            Value::Number(number) => number.as_u64().map_or(Ok(()), |number| self.check_number(place, number)),
            Value::Array(items) => {
                check_count(place, items.len(), "entries", self.min_items, self.max_items)?;
                let Some(schema) = &self.items else { return Ok(()) };
                items.iter().enumerate().try_for_each(|(at, item)| schema.check(&format!("{place}[{at}]"), item))
            }
            Value::Object(fields) => {
                check_count(place, fields.len(), "entries", self.min_properties, self.max_properties)?;
                for (name, value) in fields {
                    if let Some(schema) = &self.property_names {
                        schema.check(&format!("a name in {place}"), &Value::String(name.clone()))?;
                    }
                    let schema = self.properties.get(name).or(match &self.additional_properties {
                        Some(Additional::As(schema)) => Some(schema),
                        _ => None,
                    });
                    if let Some(schema) = schema {
                        let dot = if place.is_empty() { "" } else { "." };
                        schema.check(&format!("{place}{dot}{}", shown(name)), value)?;
                    }
                }
                Ok(())
            }
            Value::Null | Value::Bool(_) => Ok(()),
        }
    }

    fn check_text(&self, place: &str, text: &str) -> Result<(), String> {
        check_count(place, text.chars().count(), "characters", self.min_length, self.max_length)?;
        let Some(pattern) = &self.pattern else { return Ok(()) };
        let matcher = self.matcher.get_or_init(|| PikeVM::new(pattern).expect("a test reads every pattern"));
        if matcher.is_match(&mut matcher.create_cache(), text) {
            Ok(())
        } else {
            Err(format!("{place} is \"{}\", which does not match {pattern}", shown(text)))
        }
    }

    fn check_number(&self, place: &str, number: u64) -> Result<(), String> {
        let (least, most) = (self.minimum.unwrap_or(0), self.maximum.unwrap_or(u64::MAX));
        if number < least {
            Err(format!("{place} is {}, and can be {} at least", size(number, least), size(least, least)))
        } else if number > most {
            Err(format!("{place} is {}, and can be {} at most", size(number, most), size(most, most)))
        } else {
            Ok(())
        }
    }
}

fn check_count(place: &str, count: usize, of: &str, least: Option<usize>, most: Option<usize>) -> Result<(), String> {
    match (least, most) {
        (Some(least), _) if count < least => Err(format!("{place} has {count} {of}, and can have {least} at least")),
        (_, Some(most)) if count > most => Err(format!("{place} has {count} {of}, and can have {most} at most")),
        _ => Ok(()),
    }
}

/// A number, in the unit of its bound.
fn size(number: u64, bound: u64) -> String {
    if bound >= MIB && bound.is_multiple_of(MIB) { format!("{} MiB", number / MIB) } else { number.to_string() }
}

/// The beginning of a text, without characters that could control a terminal.
fn shown(text: &str) -> String {
    let begin: String = text.chars().take(64).flat_map(char::escape_debug).collect();
    if text.chars().nth(64).is_some() { begin + "..." } else { begin }
}

#[cfg(test)]
mod tests {
    use super::*;

    impl Schema {
        fn patterns<'a>(&'a self, into: &mut Vec<&'a str>) {
            into.extend(self.pattern.as_deref());
            let boxed = [&self.property_names, &self.items].into_iter().flatten().map(AsRef::as_ref);
            let additional = self.additional_properties.iter().filter_map(|additional| match additional {
                Additional::As(schema) => Some(schema.as_ref()),
                Additional::Allowed(_) => None,
            });
            let all = self.properties.values().chain(&self.any_of).chain(&self.all_of).chain(boxed).chain(additional);
            all.for_each(|schema| schema.patterns(into));
        }
    }

    #[test]
    fn the_document_and_its_patterns_can_be_read() {
        let mut patterns = Vec::new();
        DOCUMENT.components.schemas.values().for_each(|schema| schema.patterns(&mut patterns));
        for operation in DOCUMENT.paths.values().flat_map(BTreeMap::values) {
            operation.parameters.iter().for_each(|parameter| parameter.schema.patterns(&mut patterns));
        }
        assert!(patterns.len() > 20, "{patterns:?}");
        for pattern in patterns {
            assert!(PikeVM::new(pattern).is_ok(), "{pattern}");
        }
    }

    #[test]
    fn what_is_over_a_bound_is_said_in_words() {
        let said = |operation: &str, body: &str| {
            let value = serde_json::from_str(body).unwrap();
            DOCUMENT.operation(operation).unwrap().body().unwrap().check("", &value).unwrap_err()
        };
        assert_eq!(said("createVm", r#"{"cpus":256}"#), "cpus is 256, and can be 255 at most");
        assert_eq!(said("createVm", r#"{"memory":1048576}"#), "memory is 1 MiB, and can be 256 MiB at least");
        let keys = format!(r#"{{"ssh_keys":{:?}}}"#, vec!["x"; 65]);
        assert_eq!(said("addSshKeys", &keys), "ssh_keys has 65 entries, and can have 64 at most");
        assert_eq!(
            said("createVm", r#"{"publish":[{"port":1,"guest":0}]}"#),
            "publish[0].guest is 0, and can be 1 at least"
        );
        assert_eq!(
            said("renameVm", r#"{"name":"Box\u0007"}"#),
            format!("name is \"Box\\u{{7}}\", which does not match {}", banger_api::name::PATTERN)
        );
        assert_eq!(
            said("exec", r#"{"argv":["true"],"env":{"a=b":""}}"#),
            "a name in env is \"a=b\", which does not match ^[^=\\x00]+$"
        );
    }
}
