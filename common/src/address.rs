//! What the text of an address tells: whether it is one, whether it listens everywhere, and whether strangers can come to it.
//!
//! Asked by the worker's link and by the command line before anything listens or dials. Pure; nothing is resolved: a name other than
//! `localhost` counts as one that strangers know.

use std::net::IpAddr;

/// The host of `host:port`, without the brackets of IPv6.
fn host(address: &str) -> &str {
    let host = address.rsplit_once(':').map_or(address, |(host, _)| host);
    host.trim_start_matches('[').trim_end_matches(']')
}

/// Refuses what nobody can dial: no `HOST:PORT`, or a port that only who listens can ask for.
pub fn check_dialled(address: &str) -> Result<(), String> {
    check(address)?;
    match address.ends_with(":0") {
        true => Err("port 0 is none that can be dialled: write the one it listens at".to_owned()),
        false => Ok(()),
    }
}

/// Refuses what is no `HOST:PORT`, in words that name what is missing; port 0 stands for a free one.
pub fn check(address: &str) -> Result<(), String> {
    let example = "write HOST:PORT, like 127.0.0.1:7070";
    if address.contains("://") {
        return Err(format!("an address has no scheme: {example}"));
    }
    let Some((host, port)) = address.rsplit_once(':') else {
        return Err(format!("the port is missing: {example}"));
    };
    let is_bare_ipv6 = address.parse::<std::net::Ipv6Addr>().is_ok();
    if is_bare_ipv6 {
        return Err("an IPv6 address stands in brackets: write [::1]:7070".to_owned());
    }
    if host.is_empty() {
        return Err(format!("the host is missing: {example}"));
    }
    match port.parse::<u16>() {
        Ok(_) => Ok(()),
        Err(_) => Err(format!(
            "{port:?} is no port, which is 0 to 65535: {example}"
        )),
    }
}

/// Whether it takes connections at every address of its host, and so names none that others could dial.
pub fn listens_everywhere(address: &str) -> bool {
    let host = host(address).parse::<IpAddr>();
    host.is_ok_and(|host| host.is_unspecified())
}

/// Whether only processes of the same host can come to it.
pub fn is_loopback(address: &str) -> bool {
    match host(address) {
        "localhost" => true,
        host => host.parse::<IpAddr>().is_ok_and(|host| host.is_loopback()),
    }
}

/// The port of `address` at another host.
pub fn at_host(address: &str, host: &str) -> String {
    let port = address.rsplit_once(':').map_or("", |(_, port)| port);
    match host.contains(':') {
        true => format!("[{host}]:{port}"),
        false => format!("{host}:{port}"),
    }
}

/// Where `listen` is reached by whoever reaches the same process at `advertised`: what listens everywhere is there too.
pub fn seen_from_outside(listen: &str, advertised: &str) -> String {
    match listens_everywhere(listen) {
        true => at_host(listen, host(advertised)),
        false => listen.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_no_address_is_told_what_it_lacks() {
        for address in ["127.0.0.1:7070", "master:0", "[::1]:7070"] {
            assert_eq!(check(address), Ok(()), "{address}");
        }
        assert!(check_dialled("master:0").is_err() && check_dialled("master:7070").is_ok());
        for (address, lack) in [
            ("7070", "port is missing"),
            ("127.0.0.1", "port is missing"),
            (":7070", "host is missing"),
            ("master:", "\"\" is no port"),
            ("master:70700", "\"70700\" is no port"),
            ("::1", "stands in brackets"),
            ("http://master:7070", "no scheme"),
        ] {
            let told = check(address).expect_err(address);
            assert!(told.contains(lack), "{address}: {told}");
        }
    }

    #[test]
    fn only_loopback_is_out_of_reach_for_strangers() {
        for private in ["127.0.0.1:7070", "127.8.8.8:1", "[::1]:7070", "localhost:0"] {
            assert!(is_loopback(private), "{private}");
        }
        for public in [
            "0.0.0.0:7070",
            "[::]:7070",
            "192.168.1.2:1",
            "master:7070",
            ":7070",
        ] {
            assert!(!is_loopback(public), "{public}");
        }
    }

    #[test]
    fn what_listens_everywhere_is_seen_where_its_process_is_seen() {
        assert_eq!(seen_from_outside("0.0.0.0:7071", "one:7070"), "one:7071");
        assert_eq!(
            seen_from_outside("127.0.0.1:7071", "one:7070"),
            "127.0.0.1:7071"
        );
    }

    #[test]
    fn what_listens_everywhere_is_reached_at_another_host_and_the_same_port() {
        assert!(listens_everywhere("0.0.0.0:7080") && listens_everywhere("[::]:7080"));
        assert!(!listens_everywhere("127.0.0.1:7080") && !listens_everywhere("worker:7080"));
        assert_eq!(at_host("0.0.0.0:7080", "172.18.0.4"), "172.18.0.4:7080");
        assert_eq!(at_host("[::]:7080", "fd00::4"), "[fd00::4]:7080");
    }
}
