"""Clients of the control API that know nothing of Millstream but its contract.

`Control` is generated from the .proto files, as a user's would be; `Reflected` has not even those, and asks the master what it
serves, as grpcurl does.
"""

import importlib
import pathlib
import sys

import grpc
import grpc_tools
from google.protobuf import descriptor_pool, json_format, message_factory
from google.rpc import error_details_pb2
from grpc_reflection.v1alpha.proto_reflection_descriptor_database import ProtoReflectionDescriptorDatabase
from grpc_status import rpc_status
from grpc_tools import protoc

from stack import ROOT
from waiting import wait


def generate(folder):
    """Generates the client into `folder`; the modules of messages and of calls."""
    includes = [ROOT / "proto", pathlib.Path(grpc_tools.__file__).parent / "_proto"]
    arguments = ["protoc", *(f"-I{include}" for include in includes), f"--python_out={folder}", f"--grpc_python_out={folder}",
                 "millstream/v1/control.proto"]
    if protoc.main(arguments):
        raise AssertionError("protoc failed")
    sys.path.insert(0, str(folder))
    messages = importlib.import_module("millstream.v1.control_pb2")
    return messages, importlib.import_module("millstream.v1.control_pb2_grpc")


class Control:
    """Calls whichever of the masters reigns."""

    def __init__(self, folder, addresses):
        self.messages, calls = generate(folder)
        self.stubs = [calls.ControlStub(grpc.insecure_channel(address)) for address in addresses]

    def call(self, name, request, seconds=60):
        """The answer of the first master that does not refuse as one that stands by, or is gone; waits for a takeover."""
        return self.first(name, lambda stub: getattr(stub, name)(request, timeout=seconds), seconds)

    def first(self, name, ask, seconds=60):
        """What `ask` makes of the first master that answers it."""
        def answered():
            for stub in self.stubs:
                try:
                    return ask(stub)
                except grpc.RpcError as error:
                    if error.code() not in (grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.DEADLINE_EXCEEDED):
                        raise
            return None
        return wait(f"a master that answers {name}", answered, seconds)

    def submit(self, name, sql, file):
        """Begins a job."""
        return self.call("SubmitJob", self.messages.SubmitJobRequest(name=name, sql=sql, file=file))

    def job(self, name):
        """A job as it is now."""
        return self.call("GetJob", self.messages.GetJobRequest(name=name)).job

    def watch(self, name):
        """Snapshots of a job, as they come."""
        def begun(stub):
            # A stream is refused only where it is read.
            responses = stub.WatchJob(self.messages.WatchJobRequest(name=name), timeout=60)
            return next(responses), responses
        first, rest = self.first("WatchJob", begun)
        yield first.job
        for response in rest:
            yield response.job

    def jobs(self):
        """All jobs."""
        return self.call("ListJobs", self.messages.ListJobsRequest()).jobs

    def workers(self):
        """The workers that have joined."""
        return self.call("ListWorkers", self.messages.ListWorkersRequest()).workers

    def drain(self, name):
        """Ends a job with everything that came in."""
        mode = self.messages.STOP_MODE_DRAIN
        return self.call("StopJob", self.messages.StopJobRequest(name=name, mode=mode), 90)


def details(error):
    """The details of a refusal, by the names of their types."""
    status = rpc_status.from_call(error)
    found = {}
    for detail in status.details:
        if detail.Is(error_details_pb2.BadRequest.DESCRIPTOR):
            found["BadRequest"] = error_details_pb2.BadRequest.FromString(detail.value)
        else:
            found[detail.type_url.rpartition("/")[2]] = detail.value
    return status, found


class Reflected:
    """Calls by name, with what the master says about itself."""

    def __init__(self, address):
        self.channel = grpc.insecure_channel(address)
        self.database = ProtoReflectionDescriptorDatabase(self.channel)
        self.pool = descriptor_pool.DescriptorPool(self.database)

    def services(self):
        """What there is to call."""
        return set(self.database.get_services())

    def call(self, service, method, request):
        """Calls with a dictionary, answers one."""
        method = self.pool.FindServiceByName(service).FindMethodByName(method)
        ask = message_factory.GetMessageClass(method.input_type)
        answer = message_factory.GetMessageClass(method.output_type)
        path = f"/{service}/{method.name}"
        call = self.channel.unary_unary(path, ask.SerializeToString, answer.FromString)
        return json_format.MessageToDict(call(json_format.ParseDict(request, ask()), timeout=60))
