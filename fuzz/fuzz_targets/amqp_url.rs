//! Any text as an AMQP URL. What was read is written and read again the same; no message and no `Debug` text has the
//! password in it.
#![no_main]

use libfuzzer_sys::fuzz_target;
use muslin::amqp::Url;
use muslin_fuzz::peak_of;

fuzz_target!(|data: &[u8]| {
    let text = String::from_utf8_lossy(data);
    let (parsed, peak) = peak_of(|| Url::parse(&text));
    assert!(peak <= 8 * text.len() + 2048, "{peak} bytes for {}", text.len());
    if let Ok(url) = &parsed {
        assert!(!url.host().is_empty() && url.port() != 0 && !url.vhost().is_empty());
        assert!(url.user().len() < 256 && url.vhost().len() < 256);
        let whole =
            format!("amqp://{}:{}@{}/{}", escape(url.user()), "p%20w", url.address(), escape(url.vhost()));
        let again = Url::parse(&whole).unwrap();
        assert_eq!((again.user(), again.vhost()), (url.user(), url.vhost()));
    }

    // The text as a password, every byte of it escaped: what is shown is the same as for another one of its length.
    if text.is_empty() || text.len() > 1000 {
        return;
    }
    let other = "x".repeat(text.len());
    for tail in ["@h:1/", "%zz@h:1/", "@h:0/", "@/", "@h/a/b", "@h/?x"] {
        let shown = |password: &str| match Url::parse(&format!("amqp://u:{}{tail}", escape(password))) {
            Ok(url) => format!("{url} {url:?}"),
            Err(error) => format!("{error} {error:?}"),
        };
        assert_eq!(shown(&text), shown(&other));
    }
});

fn escape(text: &str) -> String {
    text.bytes().map(|b| format!("%{b:02X}")).collect()
}
