//! Virtual hosts and who may open them.
//!
//! Permissions are all or nothing: a user has every permission in the virtual hosts that it may open. RabbitMQ's
//! patterns for configure, write and read are left out.

use std::collections::HashMap;

use super::Broker;
use super::api::{ExchangeKey, QueueKey, VhostKey};
use super::name::ShortStr;
use super::refusal::{Refusal, Thing};

/// One virtual host: names and what they stand for. The default exchange is not among them; it is the queues' names.
#[derive(Debug)]
pub(crate) struct Vhost {
    pub(super) name: ShortStr,
    pub(super) exchanges: HashMap<ShortStr, ExchangeKey>,
    pub(super) queues: HashMap<ShortStr, QueueKey>,
    /// How many there are, of all exchanges.
    pub(super) bindings: usize,
}

impl Vhost {
    pub(super) fn queue<'a>(&'a self, name: &'a [u8]) -> Thing<'a> {
        Thing { kind: "queue", name, vhost: &self.name }
    }

    pub(super) fn exchange<'a>(&'a self, name: &'a [u8]) -> Thing<'a> {
        Thing { kind: "exchange", name, vhost: &self.name }
    }
}

impl Broker {
    /// Makes a virtual host with the exchanges that every one has.
    pub(super) fn add_vhost(&mut self, name: &str) {
        let name = ShortStr::from(name);
        if self.vhost_names.contains_key(&name) {
            return;
        }
        let vhost =
            Vhost { name: name.clone(), exchanges: HashMap::new(), queues: HashMap::new(), bindings: 0 };
        let key = self.vhosts.insert_with(|_| vhost);
        self.vhost_names.insert(name, key);
        self.add_predeclared_exchanges(key);
    }

    /// Whether a login is right (PLAIN). A wrong one is for the connection to refuse (403 ACCESS_REFUSED).
    pub(crate) fn login(&self, user: &[u8], password: &[u8]) -> bool {
        let user = std::str::from_utf8(user).ok().and_then(|name| self.settings.users.get(name));
        user.is_some_and(|user| user.password.as_bytes() == password)
    }

    /// Opens a virtual host (`connection.open`). The key is good for the broker's life.
    ///
    /// # Errors
    /// 530 NOT_ALLOWED where it does not exist or the user has no access.
    pub(crate) fn open_vhost(&self, user: &[u8], vhost: &[u8]) -> Result<VhostKey, Refusal> {
        let shown = String::from_utf8_lossy(vhost);
        let who = String::from_utf8_lossy(user);
        let Some(key) = self.vhost_names.get(vhost) else {
            return Err(Refusal::not_allowed(format_args!("vhost {shown} not found")));
        };
        let allowed = self.settings.users.get(who.as_ref()).is_some_and(|user| match &user.vhosts {
            None => true,
            Some(names) => names.iter().any(|name| name.as_bytes() == vhost),
        });
        if !allowed {
            let why = format_args!("access to vhost '{shown}' refused for user '{who}'");
            return Err(Refusal::not_allowed(why));
        }
        Ok(*key)
    }

    /// # Errors
    /// 530 NOT_ALLOWED for a key from elsewhere.
    pub(super) fn vhost(&self, key: VhostKey) -> Result<&Vhost, Refusal> {
        self.vhosts.get(key).ok_or_else(|| Refusal::not_allowed("no such vhost"))
    }
}
