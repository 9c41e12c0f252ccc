//! Rights: access control lists, told, created and deleted (KIP-140, KIP-290).

use kafka_protocol::messages::create_acls_request::AclCreation;
use kafka_protocol::messages::delete_acls_request::DeleteAclsFilter;
use kafka_protocol::messages::{CreateAclsRequest, DeleteAclsRequest, DescribeAclsRequest};
use kafka_protocol::protocol::StrBytes;

use super::Admin;
use super::drive::Refusal;
use super::spread::left_out;
use crate::kafka::client::text;
use crate::{Error, ErrorKind, Result};

macro_rules! codes {
    ($(#[$doc:meta])* $name:ident { $($(#[$variant_doc:meta])* $variant:ident = $code:literal $word:literal,)* }) => {
        $(#[$doc])*
        #[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
        #[non_exhaustive]
        pub enum $name {
            $($(#[$variant_doc])* $variant,)*
            /// One that this client does not know, by its number.
            Unknown(i8),
        }

        impl $name {
            const fn code(self) -> i8 {
                match self {
                    $(Self::$variant => $code,)*
                    Self::Unknown(code) => code,
                }
            }

            const fn from_code(code: i8) -> Self {
                match code {
                    $($code => Self::$variant,)*
                    code => Self::Unknown(code),
                }
            }

            /// As a lower-case word, for logs and JSON. Stable.
            #[must_use]
            pub const fn as_str(self) -> &'static str {
                match self {
                    $(Self::$variant => $word,)*
                    Self::Unknown(_) => "unknown",
                }
            }
        }
    };
}

codes! {
    /// What a right is about.
    AclResource {
        /// A topic.
        Topic = 2 "topic",
        /// A group.
        Group = 3 "group",
        /// The cluster, whose name is `kafka-cluster`.
        Cluster = 4 "cluster",
        /// A transactional id.
        TransactionalId = 5 "transactional_id",
        /// A delegation token.
        DelegationToken = 6 "delegation_token",
        /// A user.
        User = 7 "user",
    }
}

codes! {
    /// How a right's name is meant.
    AclPattern {
        /// The name itself; `*` stands for all.
        Literal = 3 "literal",
        /// All names that begin with it.
        Prefixed = 4 "prefixed",
    }
}

codes! {
    /// What may be done, or not.
    AclOperation {
        /// Everything.
        All = 2 "all",
        /// Read.
        Read = 3 "read",
        /// Write.
        Write = 4 "write",
        /// Create.
        Create = 5 "create",
        /// Delete.
        Delete = 6 "delete",
        /// Change.
        Alter = 7 "alter",
        /// See.
        Describe = 8 "describe",
        /// What brokers do among themselves.
        ClusterAction = 9 "cluster_action",
        /// See settings.
        DescribeConfigs = 10 "describe_configs",
        /// Change settings.
        AlterConfigs = 11 "alter_configs",
        /// Write idempotently.
        IdempotentWrite = 12 "idempotent_write",
        /// Create tokens.
        CreateTokens = 13 "create_tokens",
        /// See tokens.
        DescribeTokens = 14 "describe_tokens",
        /// Take part in a two-phase commit (KIP-939).
        TwoPhaseCommit = 15 "two_phase_commit",
    }
}

codes! {
    /// Whether a right is given or taken; what is denied goes before what is allowed.
    AclPermission {
        /// It may not be done.
        Deny = 2 "deny",
        /// It may be done.
        Allow = 3 "allow",
    }
}

/// One right.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Acl {
    /// What it is about.
    pub resource: AclResource,
    /// The resource's name, or the beginning of names.
    pub name: String,
    /// How the name is meant.
    pub pattern: AclPattern,
    /// Whose right it is, such as `User:alice`; `User:*` for all.
    pub principal: String,
    /// From which host, by its address; `*` for all.
    pub host: String,
    /// What may be done, or not.
    pub operation: AclOperation,
    /// Whether it may.
    pub permission: AclPermission,
}

impl Acl {
    /// The right of a principal, such as `User:alice`, to do something with the resource of this very name, from any host.
    pub fn allow(
        principal: impl Into<String>,
        operation: AclOperation,
        resource: AclResource,
        name: impl Into<String>,
    ) -> Self {
        Self {
            resource,
            name: name.into(),
            pattern: AclPattern::Literal,
            principal: principal.into(),
            host: "*".to_owned(),
            operation,
            permission: AclPermission::Allow,
        }
    }

    /// For messages: `User:alice may write topic orders`.
    fn what(&self) -> String {
        let may = match self.permission {
            AclPermission::Deny => "may not",
            AclPermission::Allow | AclPermission::Unknown(_) => "may",
        };
        let (operation, resource) = (self.operation.as_str(), self.resource.as_str());
        let rest = if self.pattern == AclPattern::Prefixed { "..." } else { "" };
        format!("{} {may} {operation} {resource} {}{rest}", self.principal, self.name)
    }
}

/// Which rights; what is not said may be anything. The default are all.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct AclFilter {
    /// About such things.
    pub resource: Option<AclResource>,
    /// Of this very name.
    pub name: Option<String>,
    /// Whose name is meant so.
    pub pattern: Option<AclPattern>,
    /// Of this principal.
    pub principal: Option<String>,
    /// From this host.
    pub host: Option<String>,
    /// For this operation.
    pub operation: Option<AclOperation>,
    /// Allowed or denied.
    pub permission: Option<AclPermission>,
}

/// "Any" in all four enumerations.
const ANY: i8 = 1;

impl From<&Acl> for AclFilter {
    /// Exactly this right.
    fn from(acl: &Acl) -> Self {
        Self {
            resource: Some(acl.resource),
            name: Some(acl.name.clone()),
            pattern: Some(acl.pattern),
            principal: Some(acl.principal.clone()),
            host: Some(acl.host.clone()),
            operation: Some(acl.operation),
            permission: Some(acl.permission),
        }
    }
}

fn wire(name: Option<&String>) -> Option<StrBytes> {
    name.map(|name| text(name))
}

impl Admin {
    /// The rights that fit a filter, sorted.
    ///
    /// # Errors
    /// [`ErrorKind::Denied`] without the right Describe on the cluster, or where the brokers have no authorizer; errors of the
    /// connection.
    pub async fn acls(&self, filter: &AclFilter) -> Result<Vec<Acl>> {
        let what = "list the ACLs";
        let request = DescribeAclsRequest::default()
            .with_resource_type_filter(filter.resource.map_or(ANY, AclResource::code))
            .with_resource_name_filter(wire(filter.name.as_ref()))
            .with_pattern_type_filter(filter.pattern.map_or(ANY, AclPattern::code))
            .with_principal_filter(wire(filter.principal.as_ref()))
            .with_host_filter(wire(filter.host.as_ref()))
            .with_operation(filter.operation.map_or(ANY, AclOperation::code))
            .with_permission_type(filter.permission.map_or(ANY, AclPermission::code));
        let mut acls = self
            .read(what, request, |answer| {
                let message = answer.error_message.as_deref();
                Refusal::check(answer.error_code, message, what, "Describe on the cluster")?;
                let told = answer.resources.iter().flat_map(|r| {
                    r.acls.iter().map(|a| Acl {
                        resource: AclResource::from_code(r.resource_type),
                        name: r.resource_name.as_str().to_owned(),
                        pattern: AclPattern::from_code(r.pattern_type),
                        principal: a.principal.as_str().to_owned(),
                        host: a.host.as_str().to_owned(),
                        operation: AclOperation::from_code(a.operation),
                        permission: AclPermission::from_code(a.permission_type),
                    })
                });
                Ok(told.collect::<Vec<_>>())
            })
            .await?;
        acls.sort();
        Ok(acls)
    }

    /// Creates rights; one that is there already stays. They hold a moment later, at each broker for itself.
    ///
    /// It may be done twice, and is where an answer was lost.
    ///
    /// # Errors
    /// [`ErrorKind::Config`] where a right makes no sense to the brokers; [`ErrorKind::Denied`] without the right Alter on the
    /// cluster, or without an authorizer; errors of the connection: [`Error::is_ambiguous`] tells whether they may have been
    /// created. Where several are given the others may have been; the first that was refused is named.
    pub async fn create_acls(&self, acls: &[Acl]) -> Result<()> {
        if acls.is_empty() {
            return Ok(());
        }
        let what = match acls {
            [one] => format!("create the ACL: {}", one.what()),
            many => format!("create {} ACLs", many.len()),
        };
        let creations = acls.iter().map(|acl| {
            AclCreation::default()
                .with_resource_type(acl.resource.code())
                .with_resource_name(text(&acl.name))
                .with_resource_pattern_type(acl.pattern.code())
                .with_principal(text(&acl.principal))
                .with_host(text(&acl.host))
                .with_operation(acl.operation.code())
                .with_permission_type(acl.permission.code())
        });
        let request = CreateAclsRequest::default().with_creations(creations.collect());
        self.repeat(&what, request, |answer, _| {
            if answer.results.len() != acls.len() {
                return Err(left_out(&what).ambiguous());
            }
            for (told, acl) in answer.results.iter().zip(acls) {
                let message = told.error_message.as_deref();
                let one = format!("create the ACL: {}", acl.what());
                Refusal::check(told.error_code, message, &one, "Alter on the cluster")?;
            }
            Ok(())
        })
        .await
    }

    /// Deletes the rights that fit a filter, and tells which. An empty filter deletes all there are: it is refused.
    ///
    /// A deletion whose answer was lost is asked for again; those that were deleted by it are not told then.
    ///
    /// # Errors
    /// [`ErrorKind::Config`] for an empty filter; [`ErrorKind::Denied`] without the right Alter on the cluster, or without an
    /// authorizer; errors of the connection: [`Error::is_ambiguous`] tells whether they may be gone.
    pub async fn delete_acls(&self, filter: &AclFilter) -> Result<Vec<Acl>> {
        let what = "delete ACLs";
        if *filter == AclFilter::default() {
            let why = "the filter is empty and would delete all there are; name something";
            return Err(Error::new(ErrorKind::Config, format!("{what}: {why}")));
        }
        let wanted = DeleteAclsFilter::default()
            .with_resource_type_filter(filter.resource.map_or(ANY, AclResource::code))
            .with_resource_name_filter(wire(filter.name.as_ref()))
            .with_pattern_type_filter(filter.pattern.map_or(ANY, AclPattern::code))
            .with_principal_filter(wire(filter.principal.as_ref()))
            .with_host_filter(wire(filter.host.as_ref()))
            .with_operation(filter.operation.map_or(ANY, AclOperation::code))
            .with_permission_type(filter.permission.map_or(ANY, AclPermission::code));
        let request = DeleteAclsRequest::default().with_filters(vec![wanted]);
        let mut gone = self
            .repeat(what, request, |answer, _| {
                let right = "Alter on the cluster";
                let Some(told) = answer.filter_results.first() else {
                    return Err(left_out(what).ambiguous());
                };
                Refusal::check(told.error_code, told.error_message.as_deref(), what, right)?;
                let mut gone = Vec::new();
                for a in &told.matching_acls {
                    let acl = Acl {
                        resource: AclResource::from_code(a.resource_type),
                        name: a.resource_name.as_str().to_owned(),
                        pattern: AclPattern::from_code(a.pattern_type),
                        principal: a.principal.as_str().to_owned(),
                        host: a.host.as_str().to_owned(),
                        operation: AclOperation::from_code(a.operation),
                        permission: AclPermission::from_code(a.permission_type),
                    };
                    let one = format!("delete the ACL: {}", acl.what());
                    Refusal::check(a.error_code, a.error_message.as_deref(), &one, right)?;
                    gone.push(acl);
                }
                Ok(gone)
            })
            .await?;
        gone.sort();
        Ok(gone)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn codes_there_and_back() {
        for code in i8::MIN..=i8::MAX {
            assert_eq!(AclResource::from_code(code).code(), code);
            assert_eq!(AclPattern::from_code(code).code(), code);
            assert_eq!(AclOperation::from_code(code).code(), code);
            assert_eq!(AclPermission::from_code(code).code(), code);
        }
        assert_eq!(AclOperation::from_code(99).as_str(), "unknown");
    }

    #[test]
    fn a_right_reads_like_a_sentence() {
        let acl = Acl::allow("User:alice", AclOperation::Write, AclResource::Topic, "orders");
        assert_eq!(acl.what(), "User:alice may write topic orders");
        let acl = Acl { permission: AclPermission::Deny, pattern: AclPattern::Prefixed, ..acl };
        assert_eq!(acl.what(), "User:alice may not write topic orders...");
    }
}
