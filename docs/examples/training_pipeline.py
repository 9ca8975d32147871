"""Three tools that never meet: one starts a training job, one looks how it is, one reports.

    python docs/examples/training_pipeline.py

An agent calls them one after the other, maybe in other processes, maybe hours apart. All that they share
is a session id: each finds in the journal what the others wrote. The SageMaker client is played by moto
(`pip install moto`), so nothing is asked of AWS.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from typing import Any

from streamjournal import Entry, Journal, current_session

_ROLE = "arn:aws:iam::123456789012:role/training"  # of nobody: moto looks at its form only


# The tools


def start_training(sagemaker: Any, *, dataset: str, learning_rate: float) -> str:
    """Start a job and say which; it goes on without us."""
    name = f"{current_session().session_id}-training"
    create_sagemaker_training_job(sagemaker, name, dataset, learning_rate)
    current_session().event("TRAINING_STARTED", job=name, dataset=dataset, learning_rate=learning_rate)
    return name


def check_status(sagemaker: Any) -> str:
    """Find out which job the session started, and write down how it is."""
    started = current_session().latest(event_type="TRAINING_STARTED")
    if started is None:
        raise LookupError("no training was started in this session")
    job = started.details["job"]
    answer = sagemaker.describe_training_job(TrainingJobName=job)
    metrics = {one["MetricName"]: one["Value"] for one in answer.get("FinalMetricDataList", [])}
    current_session().event("TRAINING_STATUS", job=job, status=answer["TrainingJobStatus"], metrics=metrics)
    return str(answer["TrainingJobStatus"])


def report(*, timeout: float = 60.0) -> str:
    """Wait until some look at the job found it completed, and sum up the session."""
    session = current_session()
    done = session.wait_for(event_type="TRAINING_STATUS", where={"status": "Completed"}, timeout=timeout)
    if done is None:
        raise TimeoutError(f"the training was not completed within {timeout:g} s")
    calls = session.journal.state(session.session_id, count_calls, dict).update()
    text = f"{done.details['job']} completed, {done.details['metrics']}; calls: {calls}"
    session.event("REPORT", text=text)
    return text


def count_calls(calls: dict[str, int], entry: Entry) -> dict[str, int]:
    """How often each tool was called."""
    if entry.event_type == "TOOL_START" and entry.tool_name:
        calls[entry.tool_name] = calls.get(entry.tool_name, 0) + 1
    return calls


# What an agent's framework does


def invoke_with_session(
    journal: Journal, session_id: str, tool: Callable[..., str], *given: Any, **arguments: Any
) -> str:
    """Call a tool in a session: the call is a span, and the tool finds the session by itself."""
    with journal.session(session_id).tool(tool.__name__, **arguments) as span:
        result = tool(*given, **arguments)
        span.result(result)
        return result


def create_sagemaker_training_job(sagemaker: Any, name: str, dataset: str, learning_rate: float) -> None:
    """The smallest job that SageMaker takes."""
    sagemaker.create_training_job(
        TrainingJobName=name,
        HyperParameters={"learning_rate": str(learning_rate)},
        AlgorithmSpecification={"TrainingImage": "training:1", "TrainingInputMode": "File"},
        RoleArn=_ROLE,
        InputDataConfig=[
            {
                "ChannelName": "train",
                "DataSource": {"S3DataSource": {"S3DataType": "S3Prefix", "S3Uri": dataset}},
            }
        ],
        OutputDataConfig={"S3OutputPath": "s3://models/"},
        ResourceConfig={"InstanceType": "ml.m5.large", "InstanceCount": 1, "VolumeSizeInGB": 10},
        StoppingCondition={"MaxRuntimeInSeconds": 3600},
    )


def main() -> None:
    import boto3
    from moto import mock_aws

    session_id = sys.argv[1] if len(sys.argv) > 1 else "churn-model"
    os.environ.setdefault("AWS_ACCESS_KEY_ID", "testing")
    os.environ.setdefault("AWS_SECRET_ACCESS_KEY", "testing")
    with mock_aws(), Journal() as journal:
        sagemaker = boto3.client("sagemaker", region_name="us-east-1")
        invoke_with_session(
            journal, session_id, start_training, sagemaker, dataset="s3://data/churn.csv", learning_rate=0.1
        )
        print(invoke_with_session(journal, session_id, check_status, sagemaker))
        print(invoke_with_session(journal, session_id, report))
        for entry in journal.read(session_id):
            print(f"{entry.event_type:17} {entry.tool_name}")


if __name__ == "__main__":
    main()
