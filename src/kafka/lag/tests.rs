use super::*;

#[test]
fn passes_and_watches_can_be_spawned() {
    fn spawnable<F: Future<Output = Result<()>> + Send + 'static>(_: impl Fn(Client) -> F) {}
    // That this compiles is the test.
    spawnable(|client| async move { client.lag().group("g").once().await.map(drop) });
    spawnable(|client| async move {
        let mut watch = client.lag().watch(Duration::from_secs(1))?;
        watch.next().await.map(drop)
    });
    spawnable(|client| async move { client.admin().groups().await.map(drop) });
    spawnable(|client| async move { client.admin().describe_group("g").await.map(drop) });
}

fn lag(records: Option<u64>, ms: Option<u64>) -> PartitionLag {
    PartitionLag {
        group: "g".into(),
        topic: Topic::new("t").unwrap(),
        partition: Partition(0),
        committed: Some(Offset(1)),
        end: Some(Offset(9)),
        lag: records,
        oldest: None,
        lag_ms: ms,
        state: LagState::Behind,
        member: None,
    }
}

#[test]
fn an_alert_is_for_what_is_above_it_and_for_waiting_records_of_unknown_age() {
    let records = LagAlert::Records(5);
    assert!(!records.is_over(&lag(Some(5), Some(9))) && records.is_over(&lag(Some(6), None)));
    assert!(!records.is_over(&lag(Some(6), Some(0))), "markers of transactions are no records");
    let young = PartitionLag { oldest: Some(Timestamp(1)), ..lag(Some(6), Some(0)) };
    assert!(records.is_over(&young));
    assert!(!records.is_over(&lag(None, None)));
    let age = LagAlert::Age(Duration::from_millis(100));
    assert!(!age.is_over(&lag(Some(5), Some(100))) && age.is_over(&lag(Some(5), Some(101))));
    assert!(age.is_over(&lag(Some(1), None)));
    assert!(!age.is_over(&lag(Some(0), Some(0))) && !age.is_over(&lag(None, None)));
}
