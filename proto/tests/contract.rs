//! What a contract for clients in any language has to keep, checked on the descriptors that reflection hands out.
//!
//! Goal: whoever generates a client finds every call and field explained, and names that do not clash in any language. Method:
//! each rule is looked for in the descriptors of the control API, comments included.

use millstream_proto::v1::DESCRIPTORS;
use prost::Message;
use prost_types::{DescriptorProto, EnumDescriptorProto, FileDescriptorProto, FileDescriptorSet};

/// Numbers of fields in the descriptors' own messages, which paths of comments are made of.
const MESSAGES: i32 = 4;
const ENUMS: i32 = 5;
const SERVICES: i32 = 6;
const PARTS: i32 = 2;

fn files() -> Vec<FileDescriptorProto> {
    let set = FileDescriptorSet::decode(DESCRIPTORS).expect("descriptors");
    let files = set.file.into_iter();
    let files = files.filter(|file| file.package().starts_with("millstream"));
    files.collect()
}

fn control() -> FileDescriptorProto {
    let mut files = files().into_iter();
    let control = files.find(|file| file.name() == "millstream/v1/control.proto");
    control.expect("the control API")
}

/// What stands at `path` in the file has a comment that says something.
fn is_explained(file: &FileDescriptorProto, path: &[i32]) -> bool {
    let locations = file.source_code_info.iter().flat_map(|info| &info.location);
    let mut here = locations.filter(|location| location.path == path);
    here.any(|location| location.leading_comments().trim().len() > 3)
}

/// A request or an answer is explained by its call.
fn is_explained_by_its_call(message: &DescriptorProto) -> bool {
    message.name().ends_with("Request") || message.name().ends_with("Response")
}

fn index(position: usize) -> i32 {
    i32::try_from(position).expect("few")
}

#[test]
fn every_call_and_field_of_the_control_api_is_explained() {
    let file = control();
    let mut silent = Vec::new();
    let mut ask = |path: &[i32], name: String| {
        if !is_explained(&file, path) {
            silent.push(name);
        }
    };
    for (at, service) in file.service.iter().enumerate() {
        ask(&[SERVICES, index(at)], service.name().to_owned());
        for (part, method) in service.method.iter().enumerate() {
            let path = [SERVICES, index(at), PARTS, index(part)];
            ask(&path, format!("{}.{}", service.name(), method.name()));
        }
    }
    for (at, message) in file.message_type.iter().enumerate() {
        if !is_explained_by_its_call(message) {
            ask(&[MESSAGES, index(at)], message.name().to_owned());
        }
        for (part, field) in message.field.iter().enumerate() {
            let path = [MESSAGES, index(at), PARTS, index(part)];
            ask(&path, format!("{}.{}", message.name(), field.name()));
        }
    }
    for (at, kind) in file.enum_type.iter().enumerate() {
        ask(&[ENUMS, index(at)], kind.name().to_owned());
        for (part, value) in kind.value.iter().enumerate() {
            let path = [ENUMS, index(at), PARTS, index(part)];
            ask(&path, format!("{}.{}", kind.name(), value.name()));
        }
    }
    assert!(silent.is_empty(), "without a comment: {silent:?}");
}

#[test]
fn contracts_carry_their_version_in_package_and_folder() {
    let files = files();
    assert!(files.len() > 1);
    for file in files {
        let folder = format!("{}/", file.package().replace('.', "/"));
        assert_eq!(file.package(), "millstream.v1");
        assert!(file.name().starts_with(&folder), "{}", file.name());
    }
}

#[test]
fn every_call_has_a_request_and_an_answer_of_its_own() {
    for service in control().service {
        for method in service.method {
            let name = method.name();
            let request = format!(".millstream.v1.{name}Request");
            let response = format!(".millstream.v1.{name}Response");
            assert_eq!(method.input_type(), request);
            assert_eq!(method.output_type(), response);
        }
    }
}

#[test]
fn values_of_enums_begin_with_the_name_and_with_unspecified() {
    for file in files() {
        for kind in file.enum_type {
            let prefix = screaming(&kind);
            let first = kind.value.first().expect("a value");
            assert_eq!(first.number(), 0);
            assert_eq!(first.name(), format!("{prefix}_UNSPECIFIED"));
            for value in &kind.value {
                assert!(value.name().starts_with(&prefix), "{}", value.name());
            }
        }
    }
}

#[test]
fn fields_have_names_that_every_language_can_turn_into_its_own() {
    for file in files() {
        for message in file.message_type {
            for field in &message.field {
                let name = field.name();
                let is_plain = |byte: u8| byte.is_ascii_lowercase() || byte == b'_';
                let is_plain = |byte: u8| is_plain(byte) || byte.is_ascii_digit();
                assert!(name.bytes().all(is_plain), "{}.{name}", message.name());
            }
        }
    }
}

/// `JobState` as `JOB_STATE`.
fn screaming(kind: &EnumDescriptorProto) -> String {
    let mut text = String::new();
    for (at, letter) in kind.name().char_indices() {
        if letter.is_ascii_uppercase() && at > 0 {
            text.push('_');
        }
        text.push(letter.to_ascii_uppercase());
    }
    text
}
