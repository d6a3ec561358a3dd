//! Makes one call to orchestratord and prints the name and message of the error reply, or `passed`. The tests of the
//! authorisation run it as another user; `busctl` prints no error names and replaces the message of `AccessDenied`.
//!
//! `bus-caller ADDRESS PATH INTERFACE METHOD SIGNATURE PROMPT`, where the signature is one of "sa{sv}", "asa{sv}", "ha{sv}", "a{sv}" and ""
//! and PROMPT is `prompt` or `silent`.
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "this is test code; a panic is how a test fails")]

use std::collections::HashMap;

use orchestratord_dbus::error_reply;
use zbus::proxy::{CacheProperties, MethodFlags};
use zbus::{OwnedStructure, Variant};

#[tokio::main(flavor = "current_thread")]
async fn main() {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [address, path, interface, method, signature, prompt] = arguments.as_slice() else {
        panic!("six arguments are expected")
    };
    let connection = zbus::connection::Builder::address(address.as_str()).build().await.expect("a connection");
    let object = zbus::proxy::Builder::<zbus::Proxy<'_>>::new(&connection)
        .destination("org.orchestratord1")
        .path(path.as_str())
        .interface(interface.as_str())
        .cache_properties(CacheProperties::No)
        .build()
        .await
        .expect("a proxy");
    let flags = if prompt == "prompt" { MethodFlags::ALLOW_INTERACTIVE_AUTH } else { MethodFlags::empty() };
    let options = HashMap::<&str, Variant<'_>>::new();
    let method = method.as_str();
    let reply = match signature.as_str() {
        "sa{sv}" => object.call_with_flags::<_, _, OwnedStructure>(method, flags, &("m", options)).await,
        "ha{sv}" => {
            let file = std::fs::File::open("/proc/self/exe").expect("this program");
            object.call_with_flags::<_, _, OwnedStructure>(method, flags, &(zbus::Fd::from(&file), options)).await
        }
        "asa{sv}" => object.call_with_flags::<_, _, OwnedStructure>(method, flags, &(vec!["m"], options)).await,
        "a{sv}" => object.call_with_flags::<_, _, OwnedStructure>(method, flags, &(options,)).await,
        _ => object.call_with_flags::<_, _, OwnedStructure>(method, flags, &()).await,
    };
    match reply {
        Ok(_) => println!("passed"),
        Err(error) => match error_reply(&error) {
            Some((name, message)) => println!("{name}: {message}"),
            // A reply without a body is no structure.
            None if signature.is_empty() => println!("passed"),
            None => panic!("{error}"),
        },
    }
}
