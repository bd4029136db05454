//! The API's operations as Markdown, from docs/openapi.json, which the daemon's tests hold against its routes.

use std::collections::BTreeSet;

use serde_json::Value;

use crate::book::escaped;

const DOCUMENT: &str = include_str!("../../../docs/openapi.json");

/// A table of all operations, then a paragraph for each: its parameters, types, and how it can fail.
///
/// # Panics
/// If the document is no OpenAPI document, which a test excludes.
pub fn operations() -> String {
    let document: Value = serde_json::from_str(DOCUMENT).expect("the document is JSON");
    let operations: Vec<(&String, &String, &Value)> = object(&document["paths"])
        .flat_map(|(path, methods)| object(methods).map(move |(method, operation)| (path, method, operation)))
        .collect();
    let mut text = "What the daemon's socket takes, from [openapi.json](openapi.json), where the types are. \
         [By example](api.md); [the frames](streams.md) of connections that are upgraded.\n\n| | | |\n| --- | --- | --- |\n"
        .to_owned();
    for (path, method, operation) in &operations {
        let id = string(&operation["operationId"]);
        let summary = escaped(string(&operation["summary"]));
        text += &format!("| {} | `{path}` | [{summary}](#{}) |\n", method.to_uppercase(), id.to_lowercase());
    }
    for (path, method, operation) in operations {
        text += &format!("\n## {}\n\n`{} {path}`: ", string(&operation["operationId"]), method.to_uppercase());
        describe(&mut text, operation);
    }
    text
}

fn describe(text: &mut String, operation: &Value) {
    *text += &format!("{}. {}\n\n", escaped(string(&operation["summary"])), escaped(about(operation)));
    for parameter in operation["parameters"].as_array().into_iter().flatten() {
        let need = if parameter["required"] == true { "" } else { ", optional" };
        let place = string(&parameter["in"]);
        *text += &format!("- {place} `{}`{need}: {}\n", string(&parameter["name"]), escaped(about(parameter)));
    }
    for (kind, content) in object(&operation["requestBody"]["content"]) {
        *text += &format!("- body: {} as `{kind}`\n", type_of(&content["schema"]));
    }
    let mut failures = Vec::new();
    for (status, response) in object(&operation["responses"]) {
        if status.starts_with(['4', '5']) {
            let codes: BTreeSet<&str> = codes(response).collect();
            failures.push(format!("{status} (`{}`)", codes.into_iter().collect::<Vec<_>>().join("`, `")));
            continue;
        }
        let types: Vec<String> = object(&response["content"])
            .map(|(kind, content)| format!("{} as `{kind}`. ", type_of(&content["schema"])))
            .collect();
        *text += &format!("- {status}: {}{}\n", types.concat(), escaped(about(response)));
    }
    if !failures.is_empty() {
        *text += &format!("- fails with {}\n", failures.join(", "));
    }
}

/// The error codes of an answer.
fn codes(response: &Value) -> impl Iterator<Item = &str> {
    let schemas = response["content"]["application/json"]["schema"]["allOf"].as_array().into_iter().flatten();
    schemas.flat_map(|schema| schema["properties"]["code"]["enum"].as_array().into_iter().flatten()).map(string)
}

/// A schema's name in the document.
fn type_of(schema: &Value) -> String {
    if let Some(reference) = schema["$ref"].as_str() {
        return format!("`{}`", reference.rsplit('/').next().unwrap_or(reference));
    }
    match schema["type"].as_str() {
        Some("array") => format!("a list of {}", type_of(&schema["items"])),
        Some(name) => format!("`{name}`"),
        None => "bytes".to_owned(),
    }
}

fn about(value: &Value) -> &str {
    string(&value["description"])
}

fn string(value: &Value) -> &str {
    value.as_str().unwrap_or_default()
}

fn object(value: &Value) -> impl Iterator<Item = (&String, &Value)> {
    value.as_object().into_iter().flatten()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_operation_has_its_types_and_its_failures() {
        let text = operations();
        let document: Value = serde_json::from_str(DOCUMENT).unwrap();
        for (path, method, operation) in
            object(&document["paths"]).flat_map(|(path, methods)| object(methods).map(move |(m, o)| (path, m, o)))
        {
            assert!(text.contains(&format!("`{} {path}`", method.to_uppercase())), "{method} {path}");
            assert!(text.contains(&format!("## {}\n", string(&operation["operationId"]))), "{operation}");
        }
        assert!(text.contains("- body: `VmCreate` as `application/json`"), "{text}");
        assert!(text.contains("a list of `Vm` as"), "{text}");
        assert!(text.contains("404 (`vm_not_found`"), "{text}");
    }
}
